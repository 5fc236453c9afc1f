"""From a prepared image to class probabilities; needs torch and MONAI only, since every exported bundle carries a copy.

It does what the network's test cases went through: resizing, padding to what the network can halve, sliding windows,
mirror images, softmax, and back to the size of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from monai.inferers.inferer import Inferer, SlidingWindowInferer
from monai.utils.type_conversion import convert_to_dst_type
from torch import Tensor
from torch.nn import functional as F


class CaseInferer(Inferer):
    """Probabilities ``(B, classes, *spatial)`` of images ``(B, C, *spatial)``.

    Args:
        window: sides of the sliding window; None takes the image at once.
        overlap: share of a window that the next one covers again.
        flips: average over all mirror images.
        divisor: without a window the image is padded with zeros to sides that are multiples of it.
        size: longest side to which images are resized first; None leaves them.
    """

    def __init__(
        self,
        window: Sequence[int] | None = None,
        overlap: float = 0.5,
        flips: bool = False,
        divisor: int = 1,
        size: int | None = None,
    ) -> None:
        self.flips, self.divisor, self.size = flips, divisor, size
        self.windows = SlidingWindowInferer(tuple(window), 4, overlap, mode="gaussian") if window else None

    @torch.no_grad()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        axes = range(2, inputs.ndim)
        mirrors = [chosen for count in range(len(axes) + 1) for chosen in combinations(axes, count)]
        image = self._resized(inputs.as_subclass(Tensor))
        found = [self._once(image.flip(m), network).flip(m) for m in (mirrors if self.flips else [()])]
        mean = torch.stack(found).mean(0)
        whole = mean if mean.shape[2:] == inputs.shape[2:] else _interpolated(mean, inputs.shape[2:])
        return convert_to_dst_type(whole, inputs)[0]  # with the name and place of the image, where it has some

    def _once(self, image: Tensor, network: Callable[..., Any]) -> Tensor:
        if self.windows is not None:
            return self.windows(image, lambda cut: _probabilities(network, cut))  # type: ignore[return-value]
        pads = [-side % self.divisor for side in image.shape[2:]]
        padded = F.pad(image, [side for pad in reversed(pads) for side in (pad // 2, pad - pad // 2)])
        kept = [slice(pad // 2, pad // 2 + side) for pad, side in zip(pads, image.shape[2:], strict=True)]
        return _probabilities(network, padded)[(..., *kept)]

    def _resized(self, image: Tensor) -> Tensor:
        longest = max(image.shape[2:])
        if self.size is None or longest == self.size:
            return image
        shape = [max(1, round(side * self.size / longest)) for side in image.shape[2:]]
        return _interpolated(image, shape, antialias=image.ndim == 4)


def _probabilities(network: Callable[..., Any], image: Tensor) -> Tensor:
    output = network(image)
    maps = output if isinstance(output, Tensor) else output[0]  # deep supervision: the main output comes first
    maps = maps.float()
    return (maps if maps.shape[2:] == image.shape[2:] else _interpolated(maps, image.shape[2:])).softmax(1)


def _interpolated(values: Tensor, shape: Sequence[int], antialias: bool = False) -> Tensor:
    mode = "bilinear" if values.ndim == 4 else "trilinear"
    return F.interpolate(values, list(shape), mode=mode, align_corners=False, antialias=antialias)
