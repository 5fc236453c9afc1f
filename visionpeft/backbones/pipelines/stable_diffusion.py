"""Stable Diffusion 1.x and 2.x: a ``UNet2DConditionModel`` on the latents of a VAE, told by one text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from visionpeft.backbones.pipelines.family import Family


class StableDiffusion(Family):
    """High-Resolution Image Synthesis with Latent Diffusion Models, 2022."""

    pipelines = ("StableDiffusionPipeline",)
    component = "unet"
    conditioned_by = "text"
    needs: ClassVar = {"unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL",)}
    guidance = 7.5
    published = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    pixels = 512

    @torch.no_grad()
    def conditioning(self, pipe: Any, texts: Sequence[str]) -> dict[str, Tensor]:
        embedded, _ = pipe.encode_prompt(list(texts), pipe.text_encoder.device, 1, False)
        return {"encoder_hidden_states": embedded}

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        return denoiser(noisy, timesteps, **conditioning).sample[:, : noisy.shape[1]]

    def draw(
        self, pipe: Any, texts: list[str], negative: list[str] | None, size: int | None, **shared: Any
    ) -> np.ndarray:
        return pipe(texts, height=size, width=size, negative_prompt=negative, **shared).images
