"""Arguments of one forward pass of the networks of diffusers: zeros of the right shapes, for audits and plans.

Each takes the model, the side of its latents (or pixels) and a device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Example = dict[str, Any]
_TOKENS = 77  # of a prompt


def unet(model: Any, size: int, device: str) -> Example:
    sample = torch.zeros(1, model.config["in_channels"], size, size, device=device)
    return {"sample": sample, "timestep": torch.zeros(1, dtype=torch.long, device=device)}


def conditional_unet(model: Any, size: int, device: str) -> Example:
    config = model.config
    width = config["cross_attention_dim"]
    text = torch.zeros(1, _TOKENS, width if isinstance(width, int) else width[0], device=device)
    example = {**unet(model, size, device), "encoder_hidden_states": text}
    if config["addition_embed_type"] == "text_time":  # SDXL: six numbers on the picture beside the pooled text
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        added = {"text_embeds": torch.zeros(1, pooled, device=device), "time_ids": torch.zeros(1, 6, device=device)}
        example["added_cond_kwargs"] = added
    return example


def autoencoder(model: Any, size: int, device: str) -> Example:
    return {"sample": torch.zeros(1, model.config["in_channels"], size, size, device=device)}


def dit(model: Any, size: int, device: str) -> Example:
    none = torch.zeros(1, dtype=torch.long, device=device)
    return {**_latents(model, size, device), "timestep": none, "class_labels": none}


def pixart(model: Any, size: int, device: str) -> Example:
    config = model.config
    sizes = {"resolution": None, "aspect_ratio": None}
    if config["sample_size"] == 128:  # such a network is told the picture's size
        sizes = {"resolution": torch.ones(1, 2, device=device), "aspect_ratio": torch.ones(1, 1, device=device)}
    return {
        **_latents(model, size, device),
        "encoder_hidden_states": torch.zeros(1, _TOKENS, config["caption_channels"], device=device),
        "timestep": torch.zeros(1, dtype=torch.long, device=device),
        "added_cond_kwargs": sizes,
    }


def sd3(model: Any, size: int, device: str) -> Example:
    return {**_latents(model, size, device), **_joint(model, device), "timestep": torch.zeros(1, device=device)}


def flux(model: Any, size: int, device: str) -> Example:
    """``size`` counts latents; the network takes them packed, four to a token."""
    tokens = (size // 2) ** 2
    example: Example = {
        "hidden_states": torch.zeros(1, tokens, model.config["in_channels"], device=device),
        **_joint(model, device),
        "timestep": torch.zeros(1, device=device),
        "img_ids": torch.zeros(tokens, 3, device=device),
        "txt_ids": torch.zeros(_TOKENS, 3, device=device),
    }
    if model.config["guidance_embeds"]:
        example["guidance"] = torch.ones(1, device=device)
    return example


def _latents(model: Any, size: int, device: str) -> dict[str, Tensor]:
    return {"hidden_states": torch.zeros(1, model.config["in_channels"], size, size, device=device)}


def _joint(model: Any, device: str) -> dict[str, Tensor]:
    """Text for the transformers in which it attends together with the picture."""
    config = model.config
    return {
        "encoder_hidden_states": torch.zeros(1, _TOKENS, config["joint_attention_dim"], device=device),
        "pooled_projections": torch.zeros(1, config["pooled_projection_dim"], device=device),
    }
