"""InstanceNorm and GroupNorm that publish how their output is made.

What autograd holds of torch's own cannot be run again: neither the bias nor ε is in it. These run the same operations
of torch, forward and backward, and say it. Where their input has a recipe itself (the gain of a DoRA), they keep that.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionpeft.kernels.eager.guard import ordinary_precision, usable
from visionpeft.kernels.recompute.cpu import Recipe, source_of
from visionpeft.kernels.recompute.saving import keep, kept, made_again, of_its_own

_aten = torch.ops.aten
Triple = tuple[Tensor, Tensor, Tensor]


def instance_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float = 1e-5) -> Tensor:
    """``F.instance_norm`` by the statistics of ``x: (N, C, *spatial)``, with the same values and gradients.

    Gradients reach ``x: (N, C, *spatial)``, ``weight`` and ``bias: (C,)``, once. On a GPU, an affine one is left to
    torch, which asks cuDNN there.
    """
    if _applies(x, weight, bias) and (x.is_cpu or weight is None) and prod(x.shape[2:]) > 1:
        return _Normalise.apply(_Instances(eps), x, weight, bias, source_of(x))
    return F.instance_norm(x, weight=weight, bias=bias, eps=eps)


def group_norm(x: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float = 1e-5) -> Tensor:
    """``F.group_norm`` of ``x: (N, C, *spatial)`` with the same values and gradients, which come once."""
    if _applies(x, weight, bias) and x.numel() > groups:
        return _Normalise.apply(_Groups(groups, eps), x, weight, bias, source_of(x))
    return F.group_norm(x, groups, weight, bias, eps)


def _applies(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether there is a backward pass to prepare, of plain contiguous tensors of one dtype that nothing casts."""
    if not usable(x, weight, bias) or not torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type):
        return False
    given = [tensor for tensor in (x, weight, bias) if tensor is not None]
    ordinary = x.dim() > 1 and x.numel() > 0 and x.is_contiguous()
    alike = all(tensor.dtype == x.dtype for tensor in given)
    return ordinary and alike and any(tensor.requires_grad for tensor in given)


class _Instances(NamedTuple):
    """A batch norm whose channels are those of every instance."""

    eps: float

    def forward(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Triple:
        weight, bias = (None if one is None else one.repeat(len(x)) for one in (weight, bias))
        y, mean, scale = torch.native_batch_norm(_rows(x), weight, bias, None, None, True, 0.0, self.eps)
        return _aten._unsafe_view(y, x.shape), mean, scale  # the output of an autograd function must be no view

    def backward(self, gy: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor | None, needs: list[bool]):
        weight = None if weight is None else weight.repeat(len(x))
        statistics = None, None, mean, scale, True, self.eps
        gx, *of_rows = _aten.native_batch_norm_backward(_rows(gy), _rows(x), weight, *statistics, needs)
        gx = gx.view(x.shape) if needs[0] else None
        return gx, *(g.view(len(x), -1).sum(0) if need else None for g, need in zip(of_rows, needs[1:], strict=True))


class _Groups(NamedTuple):
    groups: int
    eps: float

    def forward(self, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Triple:
        return torch.native_group_norm(x, weight, bias, *self._sizes(x), self.groups, self.eps)

    def backward(self, gy: Tensor, x: Tensor, mean: Tensor, scale: Tensor, weight: Tensor | None, needs: list[bool]):
        return _aten.native_group_norm_backward(gy, x, mean, scale, weight, *self._sizes(x), self.groups, needs)

    @staticmethod
    def _sizes(x: Tensor) -> tuple[int, int, int]:
        return len(x), x.shape[1], prod(x.shape[2:])


def _rows(x: Tensor) -> Tensor:
    return x.reshape(1, -1, *x.shape[2:])


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kind: _Instances | _Groups,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        recipe: Recipe | None,
    ) -> Tensor:
        ctx.set_materialize_grads(False)
        y, mean, scale = kind.forward(x, weight, bias)
        keep(ctx, recipe or x, of_its_own(weight), of_its_own(bias), mean, scale)
        ctx.kind = kind
        ctx.remake = Recipe(_made_again, (), (kind, ctx.recipes))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None) -> tuple[Tensor | None, ...]:
        if gy is None:
            return (None,) * 5
        x, weight, _, mean, scale = kept(ctx)
        needs = list(ctx.needs_input_grad[1:4])
        with ordinary_precision(gy):
            return None, *ctx.kind.backward(gy.contiguous(), x, mean, scale, weight, needs), None


def _made_again(*arguments: Any) -> Tensor:
    """The output, from what was kept and the recipes of it."""
    *saved, kind, recipes = arguments
    x, weight, bias, _, _ = made_again(recipes, tuple(saved))
    return kind.forward(x, weight, bias)[0]
