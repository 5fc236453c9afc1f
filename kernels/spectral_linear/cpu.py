"""A frozen linear layer plus a change of its spectrum: gains of leading directions, a low rank between the others.

Of ``U·diag(g)·V`` only g trains, and its gradient is an elementwise product of two things that are there anyway: what
V responds to the input, and what U reads off the output gradient. So of the six thin products of an ordinary low-rank
change, the leading components take four; and they share these four with the components that train. The mixer and the
bank of the latter are made inside, and again in backward, with the long axis last: ordinary autograd multiplies the
columns of U by X the other way round, which took four times as long.
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
    u: Tensor,
    v: Tensor,
    gains: Tensor,
    left: Tensor,
    right: Tensor,
    scale: float = 1.0,
) -> Tensor:
    """``x (W + s·U·(diag(g) ⊕ left·right)·V)ᵀ + b`` without forming the change of the weight.

    Args:
        x: ``(…, c)``.
        weight: frozen, ``(o, c)``.
        bias: frozen, ``(o,)`` or None.
        u: frozen, ``(o, n)``.
        v: frozen, ``(n, c)``.
        gains: ``(k,)``, of the first k directions.
        left: ``(n−k, r)``.
        right: ``(r, n−k)``.
        scale: the factor ``s``.

    Returns:
        ``(…, o)``. Gradients reach ``x``, ``gains``, ``left`` and ``right``, once: a gradient of the gradient raises
        RuntimeError. All tensors share one floating dtype; where anything said to be frozen trains, the definition
        runs.
    """
    if any(t is not None and t.requires_grad for t in (weight, bias, u, v)):
        return reference.spectral_linear(x, weight, bias, u, v, gains, left, right, scale)
    return _SpectralLinear.apply(x, weight, bias, u, v, gains, left, right, scale, source_of(x))


class _SpectralLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        u: Tensor,
        v: Tensor,
        gains: Tensor,
        left: Tensor,
        right: Tensor,
        scale: float,
        recipe: Recipe | None,
    ) -> Tensor:
        rows, k = x if x.dim() == 2 else x.reshape(-1, x.shape[-1]), len(gains)
        responses = _bank(v, right, k) @ rows.t()
        responses[:k] *= gains.unsqueeze(1)
        y = F.linear(rows, weight, bias).addmm_(responses.t(), _turned_mixer(u, left, k), alpha=scale)
        ctx.shape, ctx.scale = x.shape, scale
        ctx.set_materialize_grads(False)
        keep(ctx, recipe or x, weight, u, v, gains, left, right)
        return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None) -> tuple[Tensor | None, ...]:
        if gy is None:
            return (None,) * 10
        x, weight, u, v, gains, left, right = kept(ctx)
        k, gx = len(gains), None
        with ordinary_precision(gy):
            gy, rows, bank = gy.reshape(-1, gy.shape[-1]), x.reshape(-1, x.shape[-1]), _bank(v, right, k)
            mixed, responses = _turned_mixer(u, left, k) @ gy.t(), bank @ rows.t()
            mixed = mixed if ctx.scale == 1 else mixed.mul_(ctx.scale)
            g_gains = (mixed[:k] * responses[:k]).sum(1)
            mixed[:k] *= gains.unsqueeze(1)
            if ctx.needs_input_grad[0]:
                gx = (gy @ weight).addmm_(mixed.t(), bank).view(ctx.shape)
            g_left = ((responses[k:] @ gy) @ u[:, k:]).t()
            g_left = g_left if ctx.scale == 1 else ctx.scale * g_left
            g_right = (mixed[k:] @ rows) @ v[k:].t()
        return gx, None, None, None, None, g_gains, g_left, g_right, None, None


def _bank(v: Tensor, right: Tensor, k: int) -> Tensor:
    """``(k + r, c)``: the leading directions, then what ``right`` makes of the others."""
    return torch.cat([v[:k], right @ v[k:]])


def _turned_mixer(u: Tensor, left: Tensor, k: int) -> Tensor:
    """``(k + r, o)``, without the gains."""
    return torch.cat([u[:, :k].t(), left.t() @ u[:, k:].t()])
