"""Flux: a flow-matching transformer on packed latents, four neighbours to a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from visionpeft.backbones.pipelines.prompts import TextFamily

_T5_LENGTH = 512  # diffusers' default
_TIME = 1000.0  # what the pipeline divides the scheduler's time by
_PLAIN_GUIDANCE = 1.0  # the distilled guidance that stands for none: what training pictures are drawn with


class Flux(TextFamily):
    """FLUX.1 by Black Forest Labs, 2024; its guidance is an input of the network, not a second pass."""

    pipelines = ("FluxPipeline",)
    component = "transformer"
    needs: ClassVar = {"transformer": ("FluxTransformer2DModel",), "vae": ("AutoencoderKL",)}
    guidance = 3.5
    published = "black-forest-labs/FLUX.1-dev"
    pixels = 1024

    def lengths(self, pipe: Any) -> Mapping[str, int]:
        return {"tokenizer": pipe.tokenizer_max_length, "tokenizer_2": _T5_LENGTH}

    def image_size(self, pipe: Any) -> int:
        return pipe.default_sample_size * self.reduction(pipe)

    def encoded(self, pipe: Any, texts: list[str], device: torch.device) -> dict[str, Tensor]:
        embedded, pooled, _ = pipe.encode_prompt(texts, texts, device=device)
        return {"encoder_hidden_states": embedded, "pooled_projections": pooled}

    def calling(self, pipe: Any, negative: list[str] | None, guidance_scale: float) -> dict[str, Any]:
        """Negative prompts take a second pass, weighted like the distilled guidance."""
        if negative is None:
            return {"guidance_scale": guidance_scale}
        return {"negative_prompt": negative, "guidance_scale": guidance_scale, "true_cfg_scale": guidance_scale}

    def predict(self, denoiser: Any, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]) -> Tensor:
        batch, _, height, width = noisy.shape
        guided = denoiser.config["guidance_embeds"]
        found = denoiser(
            hidden_states=pack(noisy),
            timestep=timesteps.to(noisy.dtype) / _TIME,
            guidance=noisy.new_full((batch,), _PLAIN_GUIDANCE) if guided else None,
            img_ids=_places(height // 2, width // 2, noisy),
            txt_ids=noisy.new_zeros(conditioning["encoder_hidden_states"].shape[1], 3),
            **conditioning,
        ).sample
        return unpack(found, height, width)


def pack(latents: Tensor) -> Tensor:
    """``(B, c, h, w)`` → tokens ``(B, h/2·w/2, 4·c)``."""
    batch, channels, height, width = latents.shape
    cells = latents.view(batch, channels, height // 2, 2, width // 2, 2)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, height // 2 * (width // 2), 4 * channels)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of :func:`pack`."""
    batch, _, values = tokens.shape
    cells = tokens.view(batch, height // 2, width // 2, values // 4, 2, 2)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, values // 4, height, width)


def _places(rows: int, columns: int, like: Tensor) -> Tensor:
    """Row and column of every token, behind a zero: what the rotary embedding reads."""
    row, column = torch.arange(rows), torch.arange(columns)
    grid = torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=-1).flatten(0, 1)
    return torch.nn.functional.pad(grid, (1, 0)).to(like)
