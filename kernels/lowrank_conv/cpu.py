"""A frozen convolution plus a low-rank change, as one convolution forward and at most three thin ones backward.

Forward runs the layer once with ``W + s·mixer·bank`` and forgets that weight; backward builds it again for the input
gradient. A dense gradient of the weight is never needed: the gradients of the factors come from convolutions with
their R filters only, unless the layer is so narrow that the dense one is cheaper. Where the map is smaller than the
weight, the change runs ``beside`` the frozen convolution instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionpeft.kernels.conv_onednn.cpu import convolution, input_gradient
from visionpeft.kernels.conv_onednn.geometry import ConvGeometry
from visionpeft.kernels.eager.guard import ordinary_precision
from visionpeft.kernels.lowrank_conv.beside import Beside, pays
from visionpeft.kernels.lowrank_conv.factors import (
    Factors,
    Way,
    canonical,
    dense_gradient,
    dense_is_cheaper,
    from_dense,
    from_filters,
)
from visionpeft.kernels.recompute.saving import kept

__all__ = ["ConvGeometry", "lowrank_conv"]


def lowrank_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mixer: Tensor,
    bank: Tensor,
    geometry: ConvGeometry,
    scale: float = 1.0,
) -> Tensor:
    """The convolution of ``x`` with ``W + s·mixer·bank``.

    Args:
        x: ``(N, C, *spatial)`` or unbatched ``(C, *spatial)``.
        weight: frozen, as the layer stores it: ``(o, c, *kernel)``, or ``(C, o/groups, *kernel)`` if transposed.
        bias: frozen, ``(o,)`` or None.
        mixer: ``(o, R)``; with groups, its rows belong to the groups in order. Without groups also ``(o·p, R)``.
        bank: ``(R, c, *kernel)`` with ``c = C/groups``, shared by the groups. To p rows of the mixer an output belongs
            ``(R, c·taps/p)``: then the change is ``mixer·bank`` read in the order of the weight.
        geometry: the walk. Other paddings than symmetric zeros: pad ``x`` before.
        scale: the factor ``s``.

    Returns:
        ``(N, o, *spatial)``. Gradients reach ``x``, ``mixer`` and ``bank``, once: a gradient of the gradient raises
        RuntimeError. All tensors share one floating dtype. In half precision, where ``W + ΔW`` would round the change
        away, and with a base that trains, the sum of two convolutions runs instead.
    """
    if x.dim() == geometry.axes + 1:
        return lowrank_conv(x[None], weight, bias, mixer, bank, geometry, scale)[0]
    factors = Factors(mixer, bank, geometry, scale, canonical(weight, geometry))
    if needs_two(x, weight, bias):
        return _sum_of_two(x, weight, bias, factors)
    function = Beside if pays(x, factors) else _LowRankConv
    return function.apply(x, weight, bias, mixer, bank, Way.of(x, mixer, bank, geometry, scale))


def needs_two(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether base and change must be convolved one by one: half precision, or a base that trains."""
    base_trains = weight.requires_grad or (bias is not None and bias.requires_grad)
    return base_trains or x.dtype in (torch.float16, torch.bfloat16)


class _LowRankConv(torch.autograd.Function):
    # ``forward`` takes the context itself: with ``setup_context``, torch inspects the signature at each call.
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mixer: Tensor,
        bank: Tensor,
        way: Way,
    ) -> Tensor:
        ctx.way, ctx.shape = way, x.shape
        ctx.set_materialize_grads(False)
        way.keep(ctx, x if any(ctx.needs_input_grad[3:5]) else None, weight, mixer, bank)
        return convolution(x, way.factors(mixer, bank, weight).added_to(weight), bias, way.geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None) -> tuple[Tensor | None, ...]:
        if gy is None:
            return (None,) * 6
        x, weight, mixer, bank = kept(ctx)
        needs_x, _, _, needs_mixer, needs_bank, *_ = ctx.needs_input_grad
        factors = ctx.way.factors(mixer, bank, weight)
        gx = gm = gb = None
        with ordinary_precision(gy):
            if x is not None and dense_is_cheaper(factors, needs_mixer, needs_bank):
                gm, gb = from_dense(dense_gradient(gy, x, factors), factors, needs_mixer, needs_bank)
            elif x is not None:
                gm, gb = from_filters(gy, x, factors, needs_mixer, needs_bank)
            if needs_x:
                gx = input_gradient(gy, factors.added_to(weight), factors.geometry, ctx.shape)
        return gx, None, None, gm, gb, None


def _sum_of_two(x: Tensor, weight: Tensor, bias: Tensor | None, f: Factors) -> Tensor:
    """Base and branch by ordinary autograd."""
    g = f.geometry
    base = torch.convolution(x, weight, bias, *g.arguments)
    if f.parts > 1:
        return base + torch.convolution(x, f.scale * f.stored_change(), None, *g.arguments)
    responses = torch.convolution(x, f.stored_bank(), None, *g.arguments)
    still = ConvGeometry((1,) * g.axes, (0,) * g.axes, (1,) * g.axes, groups=g.groups)
    mixer = (f.scale * f.mixer)[(...,) + (None,) * g.axes]
    return base + torch.convolution(responses, mixer, None, *still.arguments)
