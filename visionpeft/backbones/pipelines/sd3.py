"""Stable Diffusion 3: a transformer in which text and picture attend jointly, trained by flow matching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from visionpeft.backbones.pipelines.prompts import TextFamily

_T5_LENGTH = 256  # diffusers' default


class StableDiffusion3(TextFamily):
    """Scaling Rectified Flow Transformers for High-Resolution Image Synthesis, 2024."""

    pipelines = ("StableDiffusion3Pipeline",)
    component = "transformer"
    needs: ClassVar = {"transformer": ("SD3Transformer2DModel",), "vae": ("AutoencoderKL",)}
    guidance = 7.0
    published = "stabilityai/stable-diffusion-3-medium-diffusers"
    pixels = 1024

    def lengths(self, pipe: Any) -> Mapping[str, int]:
        clip = pipe.tokenizer_max_length
        return {"tokenizer": clip, "tokenizer_2": clip, "tokenizer_3": _T5_LENGTH}

    def encoded(self, pipe: Any, texts: list[str], device: torch.device) -> dict[str, Tensor]:
        embedded, _, pooled, _ = pipe.encode_prompt(
            texts, texts, texts, device=device, do_classifier_free_guidance=False
        )
        return {"encoder_hidden_states": embedded, "pooled_projections": pooled}

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        return denoiser(noisy, timestep=timesteps, **conditioning).sample
