"""The definition of ``lowrank_conv``, by the dense formula and ordinary autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from visionpeft.kernels.conv_onednn.geometry import ConvGeometry, swap_grouped


def lowrank_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mixer: Tensor,
    bank: Tensor,
    geometry: ConvGeometry,
    scale: float = 1.0,
) -> Tensor:
    """The convolution with ``W + s·mixer·bank``; ``mixer: (o, R)``, ``bank: (R, c, *kernel)`` in canonical layout."""
    change = scale * torch.tensordot(mixer, bank, dims=1)
    if geometry.transposed:
        change = swap_grouped(change, geometry.groups)
    return torch.convolution(x, weight + change, bias, *geometry.arguments)
