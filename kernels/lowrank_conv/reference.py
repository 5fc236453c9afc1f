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
    magnitude: Tensor | None = None,
) -> Tensor:
    """The convolution with ``W' = W + s·mixer·bank``, or with ``m·W'/‖W'‖`` row by row, the norm without gradient.

    ``mixer: (o·p, R)``, ``bank: (R, c, *kernel)`` in canonical layout, or with p > 1 ``(R, c·taps/p)``.
    """
    stored = swap_grouped(weight, geometry.groups) if geometry.transposed else weight
    changed = stored + (scale * mixer @ bank.flatten(1)).view(stored.shape)
    if magnitude is not None:
        gain = magnitude / changed.detach().flatten(1).norm(dim=1).clamp_min(torch.finfo(changed.dtype).tiny)
        changed = changed * gain.view(-1, *[1] * (changed.dim() - 1))
    changed = swap_grouped(changed, geometry.groups) if geometry.transposed else changed
    return torch.convolution(x, changed, bias, *geometry.arguments)
