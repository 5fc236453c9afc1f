"""The definition of ``lowrank_linear``, by the dense formula and ordinary autograd."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def lowrank_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, mixer: Tensor, bank: Tensor, scale: float = 1.0
) -> Tensor:
    """``x (W + s·mixer·bank)ᵀ + b`` for ``x: (…, c)``, ``weight: (o, c)``, ``mixer: (o, R)``, ``bank: (R, c)``."""
    return F.linear(x, weight + scale * (mixer @ bank), bias)
