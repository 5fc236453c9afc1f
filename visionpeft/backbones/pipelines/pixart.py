"""PixArt-α and PixArt-Σ: a transformer with cross-attention to the words of a T5 encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from visionpeft.backbones.pipelines.prompts import TextFamily

_LENGTHS = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}  # diffusers' defaults
_KNOWS_SIZES = 128  # side of the latents of the transformers that are told the picture's size
_PIXELS_A_LATENT = 8


class PixArt(TextFamily):
    """PixArt-α: Fast Training of Diffusion Transformer for Photorealistic Text-to-Image Synthesis, 2024."""

    pipelines = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    component = "transformer"
    needs: ClassVar = {"transformer": ("PixArtTransformer2DModel",), "vae": ("AutoencoderKL",)}
    guidance = 4.5
    published = "PixArt-alpha/PixArt-XL-2-1024-MS"
    pixels = 1024

    def lengths(self, pipe: Any) -> Mapping[str, int]:
        return {"tokenizer": _LENGTHS[type(pipe).__name__]}

    def encoded(self, pipe: Any, texts: list[str], device: torch.device) -> dict[str, Tensor]:
        embedded, mask, _, _ = pipe.encode_prompt(texts, do_classifier_free_guidance=False, device=device)
        return {"encoder_hidden_states": embedded, "encoder_attention_mask": mask}

    def calling(self, pipe: Any, negative: list[str] | None, guidance_scale: float) -> dict[str, Any]:
        return {
            "negative_prompt": negative or "",
            "guidance_scale": guidance_scale,
            "clean_caption": False,  # texts are read as they are, in training too
            "use_resolution_binning": False,
        }

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        sizes: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if denoiser.config["sample_size"] == _KNOWS_SIZES:
            height, width = (_PIXELS_A_LATENT * side for side in noisy.shape[-2:])
            sizes["resolution"] = noisy.new_tensor([height, width]).expand(len(noisy), -1)
            sizes["aspect_ratio"] = noisy.new_tensor([height / width]).expand(len(noisy), -1)
        found = denoiser(noisy, timestep=timesteps, added_cond_kwargs=sizes, **conditioning).sample
        return found[:, : noisy.shape[1]]
