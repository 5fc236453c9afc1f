"""Unconditional pixel diffusion, ``DDPMPipeline`` and ``DDIMPipeline``: a ``UNet2DModel`` and a scheduler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from visionpeft.backbones.pipelines.family import Family, refuse_negative, refuse_size


class Unconditional(Family):
    """Denoising Diffusion Probabilistic Models, 2020; Denoising Diffusion Implicit Models, 2021."""

    pipelines = ("DDPMPipeline", "DDIMPipeline")
    component = "unet"
    conditioned_by = "nothing"
    needs: ClassVar = {"unet": ("UNet2DModel",)}
    guidance = 1.0
    published = "google/ddpm-celebahq-256"
    pixels = 256
    pixels_a_latent = 1

    def conditioning(self, pipe: Any, texts: Sequence[str]) -> dict[str, Tensor]:
        return {}

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        return denoiser(noisy, timesteps).sample[:, : noisy.shape[1]]

    def reduction(self, pipe: Any) -> int:
        return 1

    def latents(self, pipe: Any, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return images

    def pictures(self, pipe: Any, latents: Tensor) -> Tensor:
        return latents.clamp(-1, 1)

    def draw(
        self, pipe: Any, texts: list[str], negative: list[str] | None, size: int | None, **shared: Any
    ) -> np.ndarray:
        refuse_size(pipe, size, self.image_size(pipe))
        refuse_negative(pipe, negative)
        return pipe(batch_size=len(texts), **shared).images
