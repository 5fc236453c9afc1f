"""ReLU, LeakyReLU and SiLU that keep nothing of their own behind a layer whose output can be made again.

In place or not, torch's keep a map. ReLU's is the very map that the next layer keeps, and so is any in place: they cost
nothing, until that layer keeps a recipe instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionpeft.kernels.eager.guard import ordinary_precision, usable
from visionpeft.kernels.recompute.cpu import Recipe, source_of
from visionpeft.kernels.recompute.saving import keep, kept, made_again

_aten = torch.ops.aten


class _Activation(NamedTuple):
    """``function(x, *options, inplace)`` of torch, and ``gradient(gy, x, *options)`` of its input."""

    function: Callable[..., Tensor]
    gradient: Callable[..., Tensor]
    options: tuple[float, ...] = ()

    def of(self, x: Tensor, inplace: bool = False) -> Tensor:
        return self.function(x, *self.options, inplace)


def relu(x: Tensor, inplace: bool = False) -> Tensor:
    """``F.relu`` with the same value and gradient, which comes once where ``x`` has a recipe."""
    return _activated(_Activation(F.relu, _relu_gradient), x, inplace)


def leaky_relu(x: Tensor, slope: float = 0.01, inplace: bool = False) -> Tensor:
    """``F.leaky_relu`` with the same value and gradient, which comes once where ``x`` has a recipe."""
    return _activated(_Activation(F.leaky_relu, _leaky_relu_gradient, (slope,)), x, inplace)


def silu(x: Tensor, inplace: bool = False) -> Tensor:
    """``F.silu`` with the same value and gradient, which comes once where ``x`` has a recipe."""
    return _activated(_Activation(F.silu, _aten.silu_backward), x, inplace)


def _relu_gradient(gy: Tensor, x: Tensor) -> Tensor:
    return _aten.threshold_backward(gy, x, 0)


def _leaky_relu_gradient(gy: Tensor, x: Tensor, slope: float) -> Tensor:
    return _aten.leaky_relu_backward(gy, x, slope, False)


def _activated(kind: _Activation, x: Tensor, inplace: bool) -> Tensor:
    recipe = source_of(x) if usable(x) else None  # in this order: a compiler cannot be asked for a recipe
    if recipe is None:
        return kind.of(x, inplace)
    y = _Activate.apply(kind, x, inplace, recipe)
    node: Any = y.grad_fn
    node.output_version = y._version  # a map changed in place, and known as it is now
    return y


class _Activate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kind: _Activation, x: Tensor, inplace: bool, recipe: Recipe) -> Tensor:
        ctx.set_materialize_grads(False)
        keep(ctx, recipe)
        ctx.kind, ctx.left = kind, []
        ctx.remake = Recipe(_made_again, (), (kind, ctx.recipes, ctx.left))
        if inplace:
            ctx.mark_dirty(x)
        return kind.of(x, inplace)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None) -> tuple[None, Tensor | None, None, None]:
        if gy is None:
            return None, None, None, None
        x = ctx.left.pop() if ctx.left else kept(ctx)[0]
        with ordinary_precision(gy):
            return None, ctx.kind.gradient(gy, x, *ctx.kind.options), None, None


def _made_again(*arguments: Any) -> Tensor:
    """The output, from what was kept and the recipe of it.

    Whoever asks is the layer behind, whose backward pass runs just before the activation's own: the input is left for
    that, so that the norm in front is not made twice.
    """
    *saved, kind, recipes, left = arguments
    (x,) = made_again(recipes, tuple(saved))
    left[:] = [x]
    return kind.of(x)
