"""A frozen linear layer plus a low-rank change, as one autograd function.

Against a composition of ordinary operations this saves one sum over the output and one over the input gradient, the
scaled copy of the mixer, and (see ``recompute``) the input where it can be made again. All products with the thin
factors are written so that the long axis is the contiguous one: BLAS is two to five times slower the other way round.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionpeft.kernels.eager.guard import ordinary_precision
from visionpeft.kernels.recompute.cpu import Recipe, source_of
from visionpeft.kernels.recompute.saving import keep, kept


def lowrank_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, mixer: Tensor, bank: Tensor, scale: float = 1.0
) -> Tensor:
    """``x (W + s·mixer·bank)ᵀ + b`` without forming the change of the weight.

    Args:
        x: ``(…, c)``.
        weight: frozen, ``(o, c)``.
        bias: frozen, ``(o,)`` or None.
        mixer: ``(o, R)``.
        bank: ``(R, c)``.
        scale: the factor ``s``.

    Returns:
        ``(…, o)``. Gradients reach ``x``, ``mixer`` and ``bank``, once: a gradient of the gradient raises
        RuntimeError. All tensors share one floating dtype; a base that trains takes the ordinary path.
    """
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        return F.linear(x, weight, bias) + F.linear(F.linear(x, bank), scale * mixer)
    recipe = source_of(x) if mixer.requires_grad or bank.requires_grad else None
    return _LowRankLinear.apply(x, weight, bias, mixer, bank, scale, recipe)[0]


class _LowRankLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mixer: Tensor,
        bank: Tensor,
        scale: float,
        recipe: Recipe | None,
    ) -> tuple[Tensor, Tensor]:
        rows = x.reshape(-1, x.shape[-1])
        responses = rows @ bank.t()
        y = F.linear(rows, weight, bias).addmm_(responses, mixer.t().contiguous(), alpha=scale)
        return y.view(*x.shape[:-1], y.shape[-1]), responses

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, weight, _, mixer, bank, ctx.scale, recipe = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.shape = x.shape
        needs_mixer, needs_bank = ctx.needs_input_grad[3:5]
        responses = output[1] if needs_mixer else None
        keep(ctx, x if needs_bank else None, recipe if needs_bank else None, weight, mixer, bank, responses)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None, no_gradient: None) -> tuple[Tensor | None, ...]:
        needs_x, _, _, needs_mixer, needs_bank, *_ = ctx.needs_input_grad
        if gy is None:
            return (None,) * 7
        x, weight, mixer, bank, responses = kept(ctx, 4)
        gx = gm = gb = None
        with ordinary_precision(gy):
            gy = gy.reshape(-1, gy.shape[-1])
            mixed = gy @ mixer.t().contiguous().t()
            if needs_x:
                gx = (gy @ weight).addmm_(mixed, bank, alpha=ctx.scale).view(ctx.shape)
            if needs_mixer:
                gm = (responses.t() @ gy).t().mul_(ctx.scale)
            if needs_bank:
                gb = (mixed.t() @ x.reshape(-1, x.shape[-1])).mul_(ctx.scale)
        return gx, None, None, gm, gb, None, None
