"""The definition of ``spectral_linear``, by the dense formula and ordinary autograd."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def spectral_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    leading: tuple[Tensor, Tensor, Tensor],
    mixer: Tensor,
    bank: Tensor,
    scale: float = 1.0,
) -> Tensor:
    """``x (W + s·(U·diag(g)·V + mixer·bank))ᵀ + b`` with ``leading = U: (o, k), g: (k,), V: (k, c)``."""
    u, gains, v = leading
    return F.linear(x, weight + scale * (u * gains @ v + mixer @ bank), bias)
