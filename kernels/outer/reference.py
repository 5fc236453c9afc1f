"""The definition of ``outer``, by ordinary autograd."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def outer(factors: Sequence[Tensor]) -> Tensor:
    """``(n_j, R)`` each → ``(R, n_0, n_1, …)``: for each column, the outer product of the factors' columns."""
    product = factors[0].t()
    for factor in factors[1:]:
        product = product.unsqueeze(-1) * factor.t().view(factor.shape[1], *[1] * (product.dim() - 1), -1)
    return product
