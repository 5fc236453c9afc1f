"""The low-rank change of a convolution beside the frozen one, for maps that are smaller than the weight.

There, building ``W + s·mixer·bank`` twice a step costs more than the R filters' own convolution. Their responses are
kept: R numbers a position, where the layer's input has hundreds.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionpeft.kernels.conv_onednn.cpu import convolution, input_gradient
from visionpeft.kernels.eager.guard import ordinary_precision
from visionpeft.kernels.lowrank_conv.factors import Factors, Way
from visionpeft.kernels.recompute.saving import kept

POSITIONS_AN_OUTPUT = 2
"""So many positions a batch for each output channel, and the two ways take equally long (AVX2, rank 8, 3×3)."""


def pays(x: Tensor, factors: Factors) -> bool:
    """Whether the map is small enough; grouped, transposed and 3D layers are left to the other way, as are parts."""
    g = factors.geometry
    if g.groups > 1 or g.transposed or g.axes > 2 or factors.parts > 1:
        return False
    positions = len(x) * prod(x.shape[2:]) / prod(g.stride)
    return positions <= POSITIONS_AN_OUTPUT * factors.out


class Beside(torch.autograd.Function):
    """``W∘x + b + s·mixer·(bank∘x)``; arguments as of ``cpu.lowrank_conv``, where it :func:`pays`."""

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
        _, _, _, needs_mixer, needs_bank, *_ = ctx.needs_input_grad
        y = convolution(x, weight, bias, way.geometry)
        responses = convolution(x, bank, None, way.geometry).flatten(2)
        y.view(*y.shape[:2], -1).baddbmm_(mixer.expand(len(x), *mixer.shape), responses, alpha=way.scale)
        way.keep(ctx, x if needs_bank else None, weight, mixer, bank, responses if needs_mixer else None)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None) -> tuple[Tensor | None, ...]:
        if gy is None:
            return (None,) * 6
        x, weight, mixer, bank, responses = kept(ctx)
        needs_x, _, _, needs_mixer, needs_bank, *_ = ctx.needs_input_grad
        gx = gm = gb = None
        with ordinary_precision(gy):
            rows = gy.flatten(2)
            if needs_mixer:
                gm = (rows @ responses.transpose(1, 2)).sum(0).mul_(ctx.way.scale)
            if needs_x or needs_bank:
                mixed = (mixer.t() @ rows).mul_(ctx.way.scale).view(len(gy), -1, *gy.shape[2:])
                seen = gy.new_empty(ctx.shape) if x is None else x  # then only its shape is read
                wanted = (needs_x, needs_bank, False)
                arguments = (None, *ctx.way.geometry.arguments, wanted)
                gx, gb, _ = torch.ops.aten.convolution_backward(mixed, seen, bank, *arguments)
            if needs_x:
                gx = input_gradient(gy, weight, ctx.way.geometry, ctx.shape).add_(gx)
        return gx, None, None, gm, gb, None
