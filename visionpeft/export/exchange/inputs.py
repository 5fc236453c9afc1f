"""A small random input for a denoiser of diffusers, read off its configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from visionpeft.errors import OptionError
from visionpeft.surgery.hosts import base_class

WORDS = 7


class _Random:
    """Random tensors of a fixed seed, on the device and in the dtype of a network."""

    def __init__(self, denoiser: nn.Module):
        like = next(denoiser.parameters())
        self.device, self.dtype = like.device, like.dtype
        self.generator = torch.Generator().manual_seed(0)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator).to(self.device, self.dtype)

    def whole(self, value: int, *shape: int) -> Tensor:
        return torch.full(shape or (1,), value, device=self.device)


def example_inputs(denoiser: nn.Module) -> dict[str, Any]:
    """Keyword arguments of one forward pass: one picture, always the same.

    Raises:
        OptionError: a class whose arguments are not known here.
    """
    kind = base_class(denoiser).__name__
    if kind not in _INPUTS:
        raise OptionError(f"there is no example input for a {kind}: pass inputs=, the arguments of one forward pass")
    return _INPUTS[kind](denoiser.config, _Random(denoiser))


def _unet(config: Any, random: _Random) -> dict[str, Any]:
    side = 2 ** len(config.block_out_channels)
    inputs = {"sample": random.normal(1, config.in_channels, side, side), "timestep": random.whole(500)}
    if config.num_class_embeds or config.class_embed_type == "timestep":
        inputs["class_labels"] = random.whole(1)
    return inputs


def _conditional_unet(config: Any, random: _Random) -> dict[str, Any]:
    width = config.cross_attention_dim
    width = width if isinstance(width, int) else width[0]
    inputs = {**_unet(config, random), "encoder_hidden_states": random.normal(1, WORDS, width)}
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        sizes = {"text_embeds": random.normal(1, pooled), "time_ids": random.normal(1, 6)}
        inputs["added_cond_kwargs"] = sizes
    return inputs


def _map(config: Any, random: _Random) -> dict[str, Any]:
    side = config.sample_size
    return {"hidden_states": random.normal(1, config.in_channels, side, side), "timestep": random.whole(500)}


def _dit(config: Any, random: _Random) -> dict[str, Any]:
    return {**_map(config, random), "class_labels": random.whole(1)}


def _pixart(config: Any, random: _Random) -> dict[str, Any]:
    sizes = {"resolution": random.normal(1, 2), "aspect_ratio": random.normal(1, 1)}
    added = sizes if config.use_additional_conditions or config.sample_size == 128 else dict.fromkeys(sizes)
    words = random.normal(1, WORDS, config.caption_channels)
    return {**_map(config, random), "encoder_hidden_states": words, "added_cond_kwargs": added}


def _sd3(config: Any, random: _Random) -> dict[str, Any]:
    return {
        **_map(config, random),
        "encoder_hidden_states": random.normal(1, WORDS, config.joint_attention_dim),
        "pooled_projections": random.normal(1, config.pooled_projection_dim),
    }


def _flux(config: Any, random: _Random) -> dict[str, Any]:
    places = torch.arange(16, device=random.device)
    inputs = {
        "hidden_states": random.normal(1, 16, config.in_channels),
        "timestep": random.normal(1).abs(),
        "encoder_hidden_states": random.normal(1, WORDS, config.joint_attention_dim),
        "pooled_projections": random.normal(1, config.pooled_projection_dim),
        "img_ids": torch.stack([places * 0, places // 4, places % 4], dim=1).to(random.dtype),
        "txt_ids": torch.zeros(WORDS, 3, device=random.device, dtype=random.dtype),
    }
    return inputs | ({"guidance": random.normal(1)} if config.guidance_embeds else {})


_INPUTS: dict[str, Callable[[Any, _Random], dict[str, Any]]] = {
    "UNet2DModel": _unet,
    "UNet2DConditionModel": _conditional_unet,
    "DiTTransformer2DModel": _dit,
    "PixArtTransformer2DModel": _pixart,
    "SD3Transformer2DModel": _sd3,
    "FluxTransformer2DModel": _flux,
}
