"""Stable Diffusion XL: a larger U-Net told by two text encoders, and by the size and crop of its picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from visionpeft.backbones.pipelines.prompts import TextFamily

_ADDED = ("text_embeds", "time_ids")


class StableDiffusionXL(TextFamily):
    """SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis, 2024."""

    pipelines = ("StableDiffusionXLPipeline",)
    component = "unet"
    needs: ClassVar = {"unet": ("UNet2DConditionModel",), "vae": ("AutoencoderKL",)}
    guidance = 5.0
    published = "stabilityai/stable-diffusion-xl-base-1.0"
    pixels = 1024

    def lengths(self, pipe: Any) -> Mapping[str, int]:
        return {name: getattr(pipe, name).model_max_length for name in ("tokenizer", "tokenizer_2")}

    def encoded(self, pipe: Any, texts: list[str], device: torch.device) -> dict[str, Tensor]:
        """Pictures count as uncropped, of the size that the pipeline draws."""
        embedded, _, pooled, _ = pipe.encode_prompt(texts, device=device, do_classifier_free_guidance=False)
        if pipe.config["force_zeros_for_empty_prompt"]:  # as the pipe does where nothing is to be avoided
            empty = torch.tensor([text == "" for text in texts], device=device)
            embedded = embedded.masked_fill(empty[:, None, None], 0.0)
            pooled = pooled.masked_fill(empty[:, None], 0.0)
        side = self.image_size(pipe)
        sizes = pooled.new_tensor([side, side, 0, 0, side, side]).expand(len(texts), -1)
        return {"encoder_hidden_states": embedded, "text_embeds": pooled, "time_ids": sizes}

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        added = {key: conditioning[key] for key in _ADDED}
        text = conditioning["encoder_hidden_states"]
        return denoiser(noisy, timesteps, encoder_hidden_states=text, added_cond_kwargs=added).sample
