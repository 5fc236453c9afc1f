"""Stable Diffusion 1.x and 2.x: a ``UNet2DConditionModel`` on the latents of a VAE, told by one text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from visionpeft.backbones.pipelines.prompts import TextFamily


class StableDiffusion(TextFamily):
    """High-Resolution Image Synthesis with Latent Diffusion Models, 2022."""

    pipelines = ("StableDiffusionPipeline",)
    component = "unet"
    needs: ClassVar = {"unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL",)}
    guidance = 7.5
    published = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    pixels = 512

    def encoded(self, pipe: Any, texts: list[str], device: torch.device) -> dict[str, Tensor]:
        embedded, _ = pipe.encode_prompt(texts, device, 1, False)
        return {"encoder_hidden_states": embedded}

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        return denoiser(noisy, timesteps, **conditioning).sample[:, : noisy.shape[1]]
