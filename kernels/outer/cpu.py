"""A filter bank from its factors, column by column: what CP decompositions are made of.

Ordinary autograd keeps every partial product and reduces the gradient once a factor over all axes, which for the bank
of a 3×3 layer took longer than the convolution's own gradients. Here only the factors are kept, and the gradient of the
whole bank is read twice: all taps but the first factor are contracted first, and what remains is tiny.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionpeft.kernels.eager.guard import ordinary_precision, usable
from visionpeft.kernels.outer import reference
from visionpeft.kernels.recompute.cpu import made_by


def outer(factors: Sequence[Tensor]) -> Tensor:
    """``bank[q, i, h, w, …] = factors[0][i, q]·factors[1][h, q]·factors[2][w, q]·…``

    Args:
        factors: one or more of ``(n_j, R)``, the longest first.

    Returns:
        ``(R, n_0, n_1, …)``. Gradients reach the factors, once: a gradient of the gradient raises RuntimeError.
        Where the fused operations may not run, ordinary ones do.
    """
    if len(factors) == 1 or not usable(*factors):
        return reference.outer(factors)
    return made_by(_Outer.apply(*factors), _made, tuple(factors))


class _Outer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *factors: Tensor) -> Tensor:
        ctx.save_for_backward(*factors)
        return _product(_rows(factors))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        with ordinary_precision(gradient):
            return tuple(g.t() for g in _gradients(gradient, _rows(ctx.saved_tensors)))


def _made(*factors: Tensor) -> Tensor:
    return _product(_rows(factors))


def _rows(factors: Sequence[Tensor]) -> list[Tensor]:
    return [factor.t().contiguous() for factor in factors]


def _product(rows: Sequence[Tensor]) -> Tensor:
    """``(R, n_j)`` each → ``(R, n_0, n_1, …)``; the last factors first, so that all but one product is tiny."""
    if len(rows) == 1:
        return rows[0]
    first, rest = rows[0], _product(rows[1:])
    return first.view(*first.shape, *[1] * (rest.dim() - 1)) * rest.unsqueeze(1)


def _gradients(gradient: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
    """``(R, n_j)`` for each factor, from ``(R, n_0, n_1, …)``."""
    if len(rows) == 1:
        return [gradient]
    first, rest = rows[0], _product(rows[1:])
    flat = gradient.reshape(*first.shape, -1)
    of_first = torch.bmm(flat, rest.reshape(rest.shape[0], -1, 1)).squeeze(-1)
    of_rest = torch.bmm(first.unsqueeze(1), flat).view(rest.shape)
    return [of_first, *_gradients(of_rest, rows[1:])]
