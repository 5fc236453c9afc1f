"""The rows of a convolution's weight, one an output channel, set to given lengths."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from visionpeft.kernels.conv_onednn.geometry import ConvGeometry

SMALLEST = 1e-3
"""A gain below this hides the response in the output that has been kept: the gradient then takes another way."""


class Rows(NamedTuple):
    """``gain = magnitude/length``, both ``(o,)``, with the length of each row of ``W + ΔW``."""

    gain: Tensor
    length: Tensor

    @classmethod
    def of(cls, weight: Tensor, magnitude: Tensor, geometry: ConvGeometry) -> Rows:
        """For a weight as the layer stores it. A row of zeros has the gain zero."""
        grouped = _grouped(weight, geometry)
        length = torch.linalg.vector_norm(grouped, dim=(1, 3)).view(-1)
        length = length.clamp_min(torch.finfo(length.dtype).tiny)
        return cls(magnitude / length, length)

    def scale_(self, weight: Tensor, geometry: ConvGeometry) -> Tensor:
        """``weight``, as the layer stores it, with each row times its gain, in place."""
        gain = self.gain
        if geometry.transposed:
            inputs = len(weight) // geometry.groups
            gain = gain.view(geometry.groups, 1, -1).expand(-1, inputs, -1).reshape(weight.shape[:2])
        return weight.mul_(gain.view(*gain.shape, *[1] * (weight.dim() - gain.dim())))

    def scaled(self, mixer: Tensor) -> Tensor:
        """A mixer ``(o·p, R)``, or the gradient of one, with its rows times the gains of their outputs."""
        rows = mixer.view(len(self.gain), -1)
        return (rows * self.gain[:, None]).view(mixer.shape)

    @property
    def readable(self) -> bool:
        """Whether every response can be read off the output."""
        return self.gain.is_meta or bool(self.gain.abs().min() >= SMALLEST)

    def from_dense(self, dense: Tensor, weight: Tensor, geometry: ConvGeometry) -> Tensor:
        """The gradient of the magnitude, from that of the scaled weight ``(o, c·taps)``; ``weight`` is ``W + ΔW``."""
        stored = _grouped(weight, geometry).permute(0, 2, 1, 3).reshape(dense.shape)
        return torch.linalg.vecdot(dense, stored).div_(self.length)

    def from_output(self, gy: Tensor, y: Tensor, bias: Tensor | None) -> Tensor:
        """The gradient of the magnitude, from the output and its gradient."""
        maps, rows = y.flatten(2), gy.flatten(2)
        total = torch.linalg.vecdot(rows, maps).sum(0)
        if bias is not None:
            total -= bias * rows.sum((0, 2))
        return total.div_(self.gain * self.length)


def _grouped(weight: Tensor, geometry: ConvGeometry) -> Tensor:
    """A stored weight as ``(groups, inputs, outputs a group, taps)``; not transposed, as ``(1, 1, o, the rest)``."""
    if geometry.transposed:
        return weight.reshape(geometry.groups, -1, weight.shape[1], weight[0, 0].numel())
    return weight.reshape(1, 1, len(weight), -1)
