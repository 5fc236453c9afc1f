"""PReLU that keeps, behind a normalisation, nothing of its own.

After convolution, InstanceNorm and PReLU, autograd holds three maps of one size: the input of each. The second and the
third follow from the first. :func:`source_of` spares the layer behind the PReLU its copy; this function spares PReLU
its own, and publishes a recipe that reaches through both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionpeft.kernels.eager.guard import ordinary_precision, usable
from visionpeft.kernels.recompute.cpu import Recipe, source_of
from visionpeft.kernels.recompute.saving import keep, kept, made_again, of_its_own


def prelu(x: Tensor, weight: Tensor) -> Tensor:
    """``torch.prelu`` with the same values and gradients, keeping the recipe of ``x`` where it has one.

    Args:
        x: any shape; channels on axis 1.
        weight: slopes, ``(1,)`` or ``(channels,)``.
    """
    if not usable(x, weight) or not torch.is_grad_enabled() or not (x.requires_grad or weight.requires_grad):
        return torch.prelu(x, weight)
    return _PReLU.apply(x, weight, source_of(x))


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, recipe: Recipe | None) -> Tensor:
        ctx.set_materialize_grads(False)
        keep(ctx, of_its_own(weight), recipe or x)
        ctx.remake = Recipe(_made_again, (), (ctx.recipes,))
        return torch.prelu(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None) -> tuple[Tensor | None, Tensor | None, None]:
        if gy is None:
            return None, None, None
        weight, x = kept(ctx)
        with ordinary_precision(gy):
            return (*_gradients(gy, x, weight, ctx.needs_input_grad[1]), None)


def _made_again(*arguments: Any) -> Tensor:
    """The output, from what was kept and the recipes of it."""
    *saved, recipes = arguments
    weight, x = made_again(recipes, tuple(saved))
    return torch.prelu(x, weight)


def _gradients(gy: Tensor, x: Tensor, weight: Tensor, needs_weight: bool) -> tuple[Tensor, Tensor | None]:
    if not needs_weight and weight.numel() == 1 and gy.device.type == "cpu":
        # One frozen slope: no map of the weight's gradient has to be written.
        return torch.ops.aten.leaky_relu_backward(gy, x, weight.item(), False), None
    spread = weight if weight.numel() == 1 else weight.view(-1, *[1] * (x.dim() - 2))
    gx, gw = torch.ops.aten._prelu_kernel_backward(gy, x, spread.expand(*[1] * (x.dim() - spread.dim()), *spread.shape))
    if not needs_weight:
        return gx, None
    return gx, gw.sum([d for d in range(gw.dim()) if d != 1 or weight.numel() == 1]).view(weight.shape)
