"""A frozen linear layer plus a low-rank change whose leading components are frozen directions with trained gains.

Of ``U·diag(g)·V`` only g trains, and its gradient is an elementwise product of two things that are there anyway: what
V responds to the input, and what U reads off the output gradient. So of the six thin products of an ordinary low-rank
change, the leading components take four; and they share these four with the components that train.
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
from visionpeft.kernels.spectral_linear import reference


def spectral_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    leading: tuple[Tensor, Tensor, Tensor],
    mixer: Tensor,
    bank: Tensor,
    scale: float = 1.0,
) -> Tensor:
    """``x (W + s·(U·diag(g)·V + mixer·bank))ᵀ + b`` without forming the change of the weight.

    Args:
        x: ``(…, c)``.
        weight: frozen, ``(o, c)``.
        bias: frozen, ``(o,)`` or None.
        leading: ``U: (o, k)`` and ``V: (k, c)``, frozen, and between them the gains ``g: (k,)``.
        mixer: ``(o, R)``.
        bank: ``(R, c)``.
        scale: the factor ``s``.

    Returns:
        ``(…, o)``. Gradients reach ``x``, ``g``, ``mixer`` and ``bank``, once: a gradient of the gradient raises
        RuntimeError. All tensors share one floating dtype; where anything said to be frozen trains, the definition
        runs.
    """
    u, gains, v = leading
    if any(t is not None and t.requires_grad for t in (weight, bias, u, v)):
        return reference.spectral_linear(x, weight, bias, leading, mixer, bank, scale)
    return _SpectralLinear.apply(x, weight, bias, u, gains, v, mixer, bank, scale, source_of(x))


class _SpectralLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        u: Tensor,
        gains: Tensor,
        v: Tensor,
        mixer: Tensor,
        bank: Tensor,
        scale: float,
        recipe: Recipe | None,
    ) -> Tensor:
        rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        responses = torch.cat([v, bank]) @ rows.t()
        responses[: len(v)] *= gains.unsqueeze(1)
        y = F.linear(rows, weight, bias).addmm_(responses.t(), torch.cat([u, mixer], dim=1).t(), alpha=scale)
        ctx.shape, ctx.scale = x.shape, scale
        ctx.set_materialize_grads(False)
        keep(ctx, recipe or x, weight, u, gains, v, mixer, bank)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None) -> tuple[Tensor | None, ...]:
        if gy is None:
            return (None,) * 10
        x, weight, u, gains, v, mixer, bank = kept(ctx)
        k, gx = len(v), None
        with ordinary_precision(gy):
            gy, rows, banks = gy.reshape(-1, gy.shape[-1]), x.reshape(-1, x.shape[-1]), torch.cat([v, bank])
            mixed, responses = torch.cat([u, mixer], dim=1).t() @ gy.t(), banks @ rows.t()
            mixed = mixed if ctx.scale == 1 else mixed.mul_(ctx.scale)
            gg = (mixed[:k] * responses[:k]).sum(1)
            mixed[:k] *= gains.unsqueeze(1)
            if ctx.needs_input_grad[0]:
                gx = (gy @ weight).addmm_(mixed.t(), banks).view(ctx.shape)
            gm, gb = (responses[k:] @ gy).t(), mixed[k:] @ rows
            gm = gm if ctx.scale == 1 else gm.mul_(ctx.scale)
        return gx, None, None, None, gg, None, gm, gb, None, None
