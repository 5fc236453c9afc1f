"""From uint8 pictures to normalised batches, augmented a whole batch at a time.

Each image's change is drawn from ``(seed, epoch, index)`` alone. It is therefore the same for every method compared,
with any number of workers, and after a resume.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from visionpeft.backbones.spec import InputSpec
from visionpeft.data.cards import AugmentRule
from visionpeft.data.randomness import stream


def to_batch(pictures: Sequence[np.ndarray], size: int, spec: InputSpec) -> torch.Tensor:
    """Stack uint8 ``(H, W, C)`` pictures as float ``(B, C, size, size)`` in 0 … 1.

    The shorter side is resized to ``size`` with antialiasing and the centre is cut out. Grey pictures stay grey
    (a third of the work) unless they come with coloured ones.
    """
    if len({picture.shape for picture in pictures}) == 1:
        return _square(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), size, spec.interpolation)
    singles = [torch.from_numpy(picture.copy()).permute(2, 0, 1)[None] for picture in pictures]
    return torch.cat([_channels(_square(single, size, spec.interpolation), spec.channels) for single in singles])


def normalise(batch: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Give the batch the backbone's channels, subtract its mean and divide by its standard deviation."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (spec.mean, spec.std))
    return (_channels(batch, spec.channels) - mean) / std


def augment(batch: torch.Tensor, rule: AugmentRule, seed: int, draws: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Rotate, scale, shift, mirror and relight a batch ``(B, C, S, S)`` in 0 … 1.

    ``draws`` holds ``(epoch, index)`` of each image.
    """
    rows = [stream(seed, "augment", epoch, index).random(7) for epoch, index in draws]
    u = torch.from_numpy(np.stack(rows)).to(batch.dtype) * 2 - 1  # (B, 7) in -1 … 1
    grid = F.affine_grid(_affine(u, rule), list(batch.shape), align_corners=False)
    moved = F.grid_sample(batch, grid, mode="bilinear", padding_mode="border", align_corners=False)
    gain = (1 + rule.light * u[:, 5]).view(-1, 1, 1, 1)
    offset = (rule.light * u[:, 6]).view(-1, 1, 1, 1)
    middle = moved.mean(dim=(1, 2, 3), keepdim=True)
    return ((moved - middle) * gain + middle + offset).clamp_(0, 1)


def _affine(u: torch.Tensor, rule: AugmentRule) -> torch.Tensor:
    """Maps ``(B, 2, 3)`` from output to input coordinates, which run from -1 to 1 (so a shift counts twice)."""
    angle = torch.deg2rad(rule.rotate * u[:, 0])
    scale = 1 / (1 + rule.scale * u[:, 1])
    mirror = torch.where((u[:, 4] < 0) & rule.flip, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    top = torch.stack([cos * mirror, -sin, 2 * rule.shift * u[:, 2]], dim=1)
    bottom = torch.stack([sin * mirror, cos, 2 * rule.shift * u[:, 3]], dim=1)
    return torch.stack([top, bottom], dim=1)


def _square(images: torch.Tensor, size: int, interpolation: str) -> torch.Tensor:
    images = images.float() / 255
    height, width = images.shape[-2:]
    ratio = size / min(height, width)
    shape = (max(size, round(height * ratio)), max(size, round(width * ratio)))
    if shape != (height, width):
        images = F.interpolate(images, shape, mode=interpolation, antialias=True, align_corners=False)
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return images[..., top : top + size, left : left + size].clamp(0, 1)


def _channels(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Grey to colour by repeating, colour to grey by the weights of ITU-R 601."""
    if images.shape[1] == channels:
        return images
    if images.shape[1] == 3:
        images = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return images.expand(-1, channels, -1, -1)
