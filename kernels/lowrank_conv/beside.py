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
from visionpeft.kernels.conv_onednn.geometry import ConvGeometry
from visionpeft.kernels.eager.guard import ordinary_precision
from visionpeft.kernels.lowrank_conv.factors import Factors
from visionpeft.kernels.recompute.cpu import Recipe
from visionpeft.kernels.recompute.saving import keep, kept

POSITIONS_AN_OUTPUT = 2
"""So many positions a batch for each output channel, and the two ways take equally long (AVX2, rank 8, 3×3)."""


def pays(x: Tensor, factors: Factors) -> bool:
    """Whether the map is small enough; grouped, transposed and 3D layers are left to the other way, as are parts."""
    g = factors.geometry
    if g.groups > 1 or g.transposed or g.axes > 2 or factors.parts > 1:
        return False
    positions = len(x) * prod(x.shape[2:]) / prod(g.stride)
    return positions <= POSITIONS_AN_OUTPUT * factors.out


def beside(
    x: Tensor, weight: Tensor, bias: Tensor | None, factors: Factors, recipes: tuple[Recipe | None, ...]
) -> Tensor:
    """``W∘x + b + s·mixer·(bank∘x)``; arguments as in ``cpu.lowrank_conv``, where it :func:`pays`."""
    mixer, bank, geometry, scale, _ = factors
    return _Beside.apply(x, weight, bias, mixer, bank, geometry, scale, recipes)


class _Beside(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mixer: Tensor,
        bank: Tensor,
        geometry: ConvGeometry,
        scale: float,
        recipes: tuple[Recipe | None, ...],
    ) -> Tensor:
        ctx.geometry, ctx.scale, ctx.shape = geometry, scale, x.shape
        ctx.set_materialize_grads(False)
        _, _, _, needs_mixer, needs_bank, *_ = ctx.needs_input_grad
        y = convolution(x, weight, bias, geometry)
        responses = convolution(x, bank, None, geometry).flatten(2)
        y.view(*y.shape[:2], -1).baddbmm_(mixer.expand(len(x), *mixer.shape), responses, alpha=scale)
        of_x, of_mixer, of_bank = recipes
        own = responses if needs_mixer else None
        keep(ctx, (of_x or x) if needs_bank else None, weight, of_mixer or mixer, of_bank or bank, own)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None) -> tuple[Tensor | None, ...]:
        if gy is None:
            return (None,) * 8
        x, weight, mixer, bank, responses = kept(ctx)
        needs_x, _, _, needs_mixer, needs_bank, *_ = ctx.needs_input_grad
        gx = gm = gb = None
        with ordinary_precision(gy):
            rows = gy.flatten(2)
            if needs_mixer:
                gm = (rows @ responses.transpose(1, 2)).sum(0).mul_(ctx.scale)
            if needs_x or needs_bank:
                mixed = (mixer.t() @ rows).mul_(ctx.scale).view(len(gy), -1, *gy.shape[2:])
                seen = gy.new_empty(ctx.shape) if x is None else x  # then only its shape is read
                wanted = (needs_x, needs_bank, False)
                arguments = (None, *ctx.geometry.arguments, wanted)
                gx, gb, _ = torch.ops.aten.convolution_backward(mixed, seen, bank, *arguments)
            if needs_x:
                gx = input_gradient(gy, weight, ctx.geometry, ctx.shape).add_(gx)
        return gx, None, None, gm, gb, None, None, None
