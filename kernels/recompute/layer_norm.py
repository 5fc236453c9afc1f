"""LayerNorm computed again from what its autograd node holds: everything but ε, which is found out."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

_EPSILONS = (1e-5, 1e-6, 1e-12, 1e-8, 1e-7, 1e-3, 1e-4)
_known: WeakIdKeyDictionary = WeakIdKeyDictionary()  # LayerNorm weight → its ε


def epsilon_of(x: Tensor, rstd: Tensor, weight: Tensor | None, shape: tuple[int, ...]) -> float | None:
    """The ε of a LayerNorm of ``x`` that found ``rstd``; None when it is none of the usual ones."""
    if weight is not None and weight in _known:
        return _known[weight]
    row = int(rstd.argmax())  # where the variance is smallest, ε shows most
    sample = x.reshape(-1, prod(shape))[row].view(shape)
    wanted = rstd.flatten()[row]
    for eps in _EPSILONS:
        if torch.equal(torch.native_layer_norm(sample, shape, None, None, eps)[2].flatten()[0], wanted):
            if weight is not None:
                _known[weight] = eps
            return eps
    return None


def layer_norm(
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    shape: tuple[int, ...],
    eps: float,
) -> Tensor:
    """LayerNorm of ``x``, bit-equal to the first time.

    The result depends on ε through ``rstd`` alone, so equal ``rstd`` proves ε right. Where it was not, the statistics
    of the first time are applied as they are: equal up to rounding.
    """
    y, _, found = torch.native_layer_norm(x, shape, weight, bias, eps)
    if torch.equal(found, rstd):
        return y
    y = ((x - mean) * rstd).to(x.dtype)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias
