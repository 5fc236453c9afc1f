"""DoRA on a convolution: a low-rank change, and the length of each output's row of the weight trained apart.

The gain goes into the weight, so that no map is multiplied by it. Its gradient wants the response of each output: that
is read off the output, which the norm or activation behind keeps anyway, or comes with the gradient of the whole
weight where that one is made.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionpeft.kernels.conv_onednn.cpu import convolution, input_gradient
from visionpeft.kernels.conv_onednn.geometry import ConvGeometry
from visionpeft.kernels.eager.guard import ordinary_precision
from visionpeft.kernels.lowrank_conv.cpu import needs_two
from visionpeft.kernels.lowrank_conv.factors import (
    Factors,
    Way,
    dense_gradient,
    dense_is_cheaper,
    from_dense,
    from_filters,
)
from visionpeft.kernels.lowrank_conv.rows import Rows
from visionpeft.kernels.recompute.saving import kept


def possible(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether :func:`dora_conv` may run here.

    Not in half precision nor with a base that trains; not on devices that would have to be waited for, since it looks
    at numbers.
    """
    return (x.is_meta or x.device.type == "cpu") and not needs_two(x, weight, bias)


def dora_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    mixer: Tensor,
    bank: Tensor,
    magnitude: Tensor,
    geometry: ConvGeometry,
    scale: float = 1.0,
) -> Tensor:
    """The convolution of ``x: (N, C, *spatial)`` with ``m·(W + s·mixer·bank)/‖W + s·mixer·bank‖``, output by output.

    Arguments as of ``lowrank_conv``; ``magnitude: (o,)``. The norm has no gradient (DoRA, 2024); a row of zeros stays
    one. Gradients reach ``x``, ``mixer``, ``bank`` and ``magnitude``, once. To be called where it is :func:`possible`.
    """
    way = Way.of(x, mixer, bank, geometry, scale)
    return _DoRAConv.apply(x, weight, bias, mixer, bank, magnitude, way)


class _DoRAConv(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        mixer: Tensor,
        bank: Tensor,
        magnitude: Tensor,
        way: Way,
    ) -> Tensor:
        ctx.way, ctx.shape = way, x.shape
        ctx.set_materialize_grads(False)
        factors = way.factors(mixer, bank, weight)
        changed = factors.added_to(weight)
        rows = Rows.of(changed, magnitude, way.geometry)
        y = convolution(x, rows.scale_(changed, way.geometry), bias, way.geometry)
        wanted = ctx.needs_input_grad[3:6]
        ctx.by_filters = not dense_is_cheaper(factors, *wanted[:2])
        reads = ctx.by_filters and wanted[2] and rows.readable and not y.is_inference()
        ctx.output = Watched.now(y) if reads else None
        # As data, since autograd would refuse to give an output back that has been changed in place.
        own = (*rows, y.data if ctx.output else None, bias)
        way.keep(ctx, x if any(wanted) else None, weight, mixer, bank, *own)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor | None) -> tuple[Tensor | None, ...]:
        if gy is None:
            return (None,) * 7
        x, weight, mixer, bank, gain, length, y, bias = kept(ctx)
        factors = ctx.way.factors(mixer, bank, weight)
        rows, wanted = Rows(gain, length), ctx.needs_input_grad[3:6]
        gx, of_factors = None, (None,) * 3
        with ordinary_precision(gy):
            changed = factors.added_to(weight)
            told = not wanted[2] or (ctx.output is not None and ctx.output.untouched)
            if x is not None and ctx.by_filters and told:
                of_factors = _by_output(gy, x, y, bias, factors, rows, wanted)
            elif x is not None:
                of_factors = _by_weight(gy, x, changed, factors, rows, wanted)
            if ctx.needs_input_grad[0]:
                gx = input_gradient(gy, rows.scale_(changed, factors.geometry), factors.geometry, ctx.shape)
        return gx, None, None, *of_factors, None


class Watched(NamedTuple):
    """Whether a tensor is as it was, told without keeping it."""

    view: Tensor
    version: int

    @classmethod
    def now(cls, y: Tensor) -> Watched:
        view = y.view_as(y)
        # Lets the storage go; the count of changes in place stays the common one.
        view.set_(y.new_empty(0))  # pyright: ignore[reportArgumentType]
        return cls(view, view._version)

    @property
    def untouched(self) -> bool:
        return self.view._version == self.version


def _by_output(
    gy: Tensor, x: Tensor, y: Tensor | None, bias: Tensor | None, f: Factors, rows: Rows, wanted: tuple
) -> tuple:
    """The gradients of mixer, bank and magnitude by the filters' responses and the output."""
    gm, gb = from_filters(gy, x, f._replace(mixer=rows.scaled(f.mixer)), *wanted[:2])
    of_magnitude = rows.from_output(gy, y, bias) if wanted[2] and y is not None else None
    return None if gm is None else rows.scaled(gm), gb, of_magnitude


def _by_weight(gy: Tensor, x: Tensor, changed: Tensor, f: Factors, rows: Rows, wanted: tuple) -> tuple:
    """The same by the gradient of the whole weight."""
    dense = dense_gradient(gy, x, f)
    of_magnitude = rows.from_dense(dense, changed, f.geometry) if wanted[2] else None
    return *from_dense(dense.mul_(rows.gain[:, None]), f, *wanted[:2]), of_magnitude
