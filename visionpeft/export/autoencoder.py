"""A merged autoencoder as plain ``diffusers.AutoencoderKL.from_pretrained`` loads it, its latents of unit scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import nn

from visionpeft.data.pictures.module import PictureData
from visionpeft.export.merged import merged_state

PICTURES = 512
"""Training pictures of which the scale of latents is measured."""


def write_autoencoder(folder: Path, network: nn.Module, data: PictureData) -> AutoencoderKL:
    """Save the merged network with the measured ``scaling_factor``, and return it.

    Args:
        folder: ``config.json`` and the weights (safetensors) are written to it.
        network: an ``AutoencoderKL``, adapted or not; it stays as it is.
        data: the pictures it was trained on.
    """
    plain: Any = AutoencoderKL.from_config(network.config)  # pyright: ignore[reportArgumentType]
    plain.load_state_dict(merged_state(network))
    plain.register_to_config(scaling_factor=round(1 / latent_scale(plain.eval(), data), 4))
    plain.save_pretrained(folder, safe_serialization=True)
    return plain


@torch.no_grad()
def latent_scale(vae: AutoencoderKL, data: PictureData) -> float:
    """Standard deviation of all latent numbers of training pictures, spread evenly over the table."""
    train = data.split.train
    chosen = train[:: max(1, len(train) // PICTURES)]
    images = data.ordered("train").dataset
    latents = [vae.encode(images[0, place][0][None]).latent_dist.mode() for place in chosen]  # pyright: ignore
    return torch.cat(latents).std().item()
