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
    recipes = source_of(x), source_of(mixer), source_of(bank)
    return _LowRankLinear.apply(x, weight, bias, mixer, bank, scale, recipes)


class _LowRankLinear(torch.autograd.Function):
    # ``forward`` takes the context itself: with ``setup_context``, torch inspects the signature at each call, which
    # costs as much as a thin product. Transforms that need ``setup_context`` never come here (``eager.guard.usable``).
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mixer: Tensor,
        bank: Tensor,
        scale: float,
        recipes: tuple[Recipe | None, ...],
    ) -> Tensor:
        rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        responses = bank @ rows.t()
        y = F.linear(rows, weight, bias).addmm_(responses.t(), mixer.t(), alpha=scale)
        _, _, _, needs_mixer, needs_bank, *_ = ctx.needs_input_grad
        ctx.shape, ctx.scale = x.shape, scale
        ctx.set_materialize_grads(False)
        of_x, of_mixer, of_bank = recipes
        own = responses if needs_mixer else None
        keep(ctx, (of_x or x) if needs_bank else None, weight, of_mixer or mixer, of_bank or bank, own)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None) -> tuple[Tensor | None, ...]:
        if gy is None:
            return (None,) * 7
        needs_x, _, _, needs_mixer, needs_bank, *_ = ctx.needs_input_grad
        x, weight, mixer, bank, responses = kept(ctx)
        gx = gm = gb = None
        with ordinary_precision(gy):
            gy = gy.reshape(-1, gy.shape[-1])
            mixed = mixer.t() @ gy.t()
            mixed = mixed if ctx.scale == 1 else mixed.mul_(ctx.scale)
            if needs_x:
                gx = (gy @ weight).addmm_(mixed.t(), bank).view(ctx.shape)
            if needs_mixer:
                gm = (responses @ gy).t()
                gm = gm if ctx.scale == 1 else gm.mul_(ctx.scale)
            if needs_bank:
                gb = mixed @ x.reshape(-1, x.shape[-1])
        return gx, None, None, gm, gb, None, None
