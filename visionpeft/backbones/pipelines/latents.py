"""Images to latents and back by an ``AutoencoderKL``, scaled as its configuration says."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def encode(vae: Any, images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Scaled latents of ``images`` in −1 … 1: a draw of the posterior with ``generator``, its mode without."""
    posterior = vae.encode(images.to(vae.device, vae.dtype)).latent_dist
    drawn = posterior.mode() if generator is None else posterior.sample(generator)
    shift, scale = _affine(vae, drawn)
    return (drawn - shift) * scale


def decode(vae: Any, latents: Tensor) -> Tensor:
    """The inverse of :func:`encode`, not clamped."""
    shift, scale = _affine(vae, latents)
    return vae.decode((latents / scale + shift).to(vae.device, vae.dtype)).sample


def factor(vae: Any) -> int:
    """Pixels of a side that one latent stands for."""
    return 2 ** (len(vae.config["block_out_channels"]) - 1)


def _affine(vae: Any, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
    """Shift and scale: a number each, or one a channel where the configuration holds their statistics."""
    config, scale = vae.config, float(vae.config["scaling_factor"])
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is None or std is None:
        return float(config.get("shift_factor") or 0.0), scale
    shape = (1, -1, 1, 1)
    return like.new_tensor(mean).view(shape), scale / like.new_tensor(std).view(shape)
