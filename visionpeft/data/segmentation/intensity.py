"""From raw values to the range a network is trained on."""

from __future__ import annotations

import numpy as np
import torch

from visionpeft.backbones.spec import InputSpec
from visionpeft.data.segmentation.cards import Intensity
from visionpeft.errors import DataError

PERCENTILES = (1.0, 99.8)


def normalise(image: np.ndarray, rule: Intensity) -> np.ndarray:
    """Apply a card's ``intensity`` to raw values ``(C, *spatial)``; float32 of the same shape."""
    if rule.kind == "picture":
        return image.astype(np.float32) / (65535 if image.dtype == np.uint16 else 255)
    values = image.astype(np.float32)
    if rule.kind == "zscore":
        return _standardised(values)
    low, high = rule.window if rule.kind == "ct" else np.percentile(values, PERCENTILES)
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1).astype(np.float32)


def _standardised(values: np.ndarray) -> np.ndarray:
    inside = values != 0
    known = values[inside]
    if known.size == 0:
        return values
    spread = float(known.std(dtype=np.float64)) or 1.0
    return np.where(inside, (values - known.mean(dtype=np.float64)) / spread, 0).astype(np.float32)


def for_network(images: torch.Tensor, rule: Intensity, spec: InputSpec | None) -> torch.Tensor:
    """Give a batch ``(B, C, *spatial)`` the channels, mean and deviation that the backbone was trained with.

    One channel is repeated where the backbone wants more. Standardised values (``zscore``) are left as they are.

    Raises:
        DataError: the images have several channels, and the backbone wants another number.
    """
    if spec is None:
        return images
    if images.shape[1] == 1 and spec.channels > 1:
        images = images.expand(-1, spec.channels, *[-1] * (images.ndim - 2))
    if images.shape[1] != spec.channels:
        raise DataError(
            f"the images have {images.shape[1]} channels, but the backbone takes {spec.channels}: "
            "change `channels` of the card, or the backbone's input channels"
        )
    if rule.kind == "zscore":
        return images
    shape = (1, -1, *[1] * (images.ndim - 2))
    mean, std = (torch.tensor(values).view(shape) for values in (spec.mean, spec.std))
    return (images - mean) / std


def padding_of(channels: int, rule: Intensity, spec: InputSpec | None) -> torch.Tensor:
    """What to pad images with, one value a channel, so that :func:`for_network` makes zeros of it: ``(channels,)``.

    Predictions pad with zeros after that function, so training must pad alike. One channel that will be repeated for
    several means gets their average.
    """
    if spec is None or rule.kind == "zscore":
        return torch.zeros(channels)
    mean = torch.tensor(spec.mean)
    return mean if len(mean) == channels else mean.mean().expand(channels)
