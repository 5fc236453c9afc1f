"""The definition of ``spectral_linear``, by the dense formula and ordinary autograd."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def spectral_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    u: Tensor,
    v: Tensor,
    gains: Tensor,
    left: Tensor,
    right: Tensor,
    scale: float = 1.0,
) -> Tensor:
    """``x (W + s·U·(diag(g) ⊕ left·right)·V)ᵀ + b`` for ``u: (o, n)``, ``v: (n, c)``, ``gains: (k,)``."""
    middle = torch.block_diag(torch.diag(gains), left @ right)
    return F.linear(x, weight + scale * (u @ middle @ v), bias)
