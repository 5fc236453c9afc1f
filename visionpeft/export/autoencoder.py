"""A merged autoencoder as plain ``diffusers.AutoencoderKL.from_pretrained`` loads it, its latents of unit scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from visionpeft.data.pictures.module import PictureData
from visionpeft.export.merged import merged_state

PICTURES = 512
"""Training pictures, about, of which the scale of latents is measured."""


def write_autoencoder(folder: Path, network: nn.Module, data: PictureData) -> AutoencoderKL:
    """Save the merged network so that its latents have mean 0 and deviation 1 in every channel, and return it.

    Args:
        folder: ``config.json`` and the weights (safetensors) are written to it.
        network: an ``AutoencoderKL``, adapted or not; it stays as it is.
        data: the pictures it was trained on.
    """
    plain: Any = AutoencoderKL.from_config(network.config)  # pyright: ignore[reportArgumentType]
    plain.load_state_dict(merged_state(network))
    latents = latents_of(plain.eval(), data)
    standardise(plain, latents.mean((0, 2, 3)), latents.std((0, 2, 3)))
    plain.save_pretrained(folder, safe_serialization=True)
    return plain


@torch.no_grad()
def latents_of(vae: AutoencoderKL, data: PictureData) -> Tensor:
    """Modes ``(N, C, H, W)`` of training pictures, spread evenly over the table."""
    train = data.split.train
    images = data.ordered("train").dataset
    chosen = [images[0, place][0] for place in train[:: max(1, len(train) // PICTURES)]]
    return torch.cat([vae.encode(image[None]).latent_dist.mode() for image in chosen])  # pyright: ignore


@torch.no_grad()
def standardise(vae: AutoencoderKL, mean: Tensor, deviation: Tensor) -> None:
    """Shift and scale each latent channel by the two 1×1 convolutions around the latents; pictures come back the same.

    ``latents_mean`` and ``latents_std`` of a configuration would say the same, but Stable Diffusion's pipeline reads
    its one ``scaling_factor`` alone, which is 1 afterwards.
    """
    inward: Any = vae.quant_conv
    outward: Any = vae.post_quant_conv
    assert inward is not None and outward is not None, "as diffusers builds it"
    outward.bias += outward.weight.flatten(1) @ mean
    outward.weight *= deviation[None, :, None, None]
    means, variances = slice(None, len(mean)), slice(len(mean), None)
    inward.bias[means] -= mean
    inward.bias[means] /= deviation
    inward.weight[means] /= deviation[:, None, None, None]
    inward.bias[variances] -= 2 * deviation.log()
    vae.register_to_config(scaling_factor=1.0)
