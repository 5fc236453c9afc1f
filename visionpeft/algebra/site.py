"""A site: one weight to adapt, seen as ``(out, in/groups, *kernel)``, with the geometry of its host.

Methods are written against the verbs of this class and never mention Linear or Conv. Three verbs carry everything:
``op`` applies a whole weight, ``bank`` applies a few filters (per group), ``mix`` combines their responses into the
output channels. ``point`` and ``along`` are the two halves of a separable filter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

Kind = Literal["linear", "conv", "embedding", "parameter"]
Layout = Literal["plain", "swapped", "conv_transpose", "flat"]


@dataclass(frozen=True)
class ConvGeometry:
    """How a convolution walks: one entry an axis, in the order of the kernel axes.

    ``pads`` holds (before, after) an axis. ``mode`` is torch's padding mode; ``constant`` stands for zeros.
    """

    stride: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    mode: str = "constant"

    @property
    def axes(self) -> int:
        return len(self.stride)

    @property
    def symmetric_zeros(self) -> bool:
        """Whether the convolution kernel itself can do the padding."""
        return self.mode == "constant" and all(a == b for a, b in self.pads)

    def pad(self, x: Tensor) -> Tensor:
        """Pad ``x: (N, C, *spatial)`` explicitly, unless the convolution can do it itself."""
        if self.symmetric_zeros or self.transposed:
            return x
        return F.pad(x, [p for pair in reversed(self.pads) for p in pair], mode=self.mode)

    @property
    def inner_padding(self) -> tuple[int, ...]:
        """The padding left to the convolution after :meth:`pad`."""
        return tuple(a for a, _ in self.pads) if self.symmetric_zeros or self.transposed else (0,) * self.axes

    def only(self, axis: int) -> ConvGeometry:
        """The same walk along one kernel axis; the others stand still."""

        def keep(values: tuple, still: object) -> tuple:
            return tuple(v if i == axis else still for i, v in enumerate(values))

        return replace(
            self,
            stride=keep(self.stride, 1),
            pads=keep(self.pads, (0, 0)),
            dilation=keep(self.dilation, 1),
            output_padding=keep(self.output_padding, 0),
        )


@dataclass(frozen=True)
class Site:
    """One weight (or a range of its output rows) in canonical shape.

    Args:
        kind: what the host does with the weight; a ``parameter`` has no operation, only the weight.
        shape: canonical shape ``(out, in/groups, *kernel)`` of this site's rows.
        native: shape of the host's whole weight as stored.
        layout: how stored and canonical shape relate.
        start: first output row, where the site is a slice of the host's rows.
        rows: output rows of the whole host.
        conv: the walk, for convolutions.
    """

    kind: Kind
    shape: tuple[int, ...]
    native: tuple[int, ...]
    layout: Layout = "plain"
    start: int = 0
    rows: int = 0
    conv: ConvGeometry | None = None

    # --- shape -------------------------------------------------------------------------------------------------
    @property
    def out(self) -> int:
        return self.shape[0]

    @property
    def inp(self) -> int:
        """Input channels a group."""
        return self.shape[1]

    @property
    def kernel(self) -> tuple[int, ...]:
        return self.shape[2:]

    @property
    def groups(self) -> int:
        return self.conv.groups if self.conv else 1

    @property
    def fan_in(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def is_slice(self) -> bool:
        return self.out != self.rows

    def slice(self, start: int, stop: int) -> Site:
        """The site of output rows ``start:stop``."""
        return replace(self, shape=(stop - start, *self.shape[1:]), start=self.start + start)

    # --- weights -----------------------------------------------------------------------------------------------
    def canonical(self, native: Tensor) -> Tensor:
        """The site's rows of a stored weight, as ``shape``."""
        whole = self._canonical_whole(native)
        return whole[self.start : self.start + self.out] if self.is_slice else whole

    def _canonical_whole(self, native: Tensor) -> Tensor:
        if self.layout == "swapped":
            return native.t()
        if self.layout == "conv_transpose":
            return _swap_grouped(native, self.groups)
        return native.reshape(self.rows, *self.shape[1:])

    def to_native(self, change: Tensor) -> Tensor:
        """A canonical change of this site's rows as a change of the whole stored weight (zero elsewhere)."""
        if self.is_slice:
            change = self.whole_rows(change, dim=0)
        if self.layout == "swapped":
            return change.t()
        if self.layout == "conv_transpose":
            return _swap_grouped(change, self.groups)
        return change.reshape(self.native)

    def whole_rows(self, part: Tensor, dim: int) -> Tensor:
        """Pad ``part`` with zeros along ``dim`` from this site's rows to all rows of the host."""
        after = self.rows - self.start - self.out
        trailing = part.dim() - 1 - (dim % part.dim())
        return F.pad(part, [0, 0] * trailing + [self.start, after])

    # --- verbs on activations ------------------------------------------------------------------------------------
    @property
    def channel_dim(self) -> int:
        """Where the output channels lie in an activation."""
        return -1 - self.conv.axes if self.conv else -1

    def per_channel(self, values: Tensor) -> Tensor:
        """``(out,)`` shaped so that it multiplies an output activation channel by channel."""
        return values.view(-1, *[1] * self.conv.axes) if self.conv else values

    def op(self, x: Tensor, native: Tensor, bias: Tensor | None = None) -> Tensor:
        """What the host computes, with ``native`` as its whole stored weight."""
        if self.conv is not None:
            return _convolve(x, native, bias, self.conv)
        if self.kind == "embedding":
            return F.embedding(x, native)
        return F.linear(x, native.t() if self.layout == "swapped" else native, bias)

    def bank(self, x: Tensor, filters: Tensor) -> Tensor:
        """Responses of ``filters: (R, in/groups, *kernel)``: ``(…, R)``, or ``(N, groups·R, *spatial)``."""
        if self.conv is None:
            if self.kind == "embedding":
                return F.embedding(x, filters.t())
            return F.linear(x, filters)
        stacked = filters.repeat(self.groups, *[1] * (filters.dim() - 1)) if self.groups > 1 else filters
        if self.conv.transposed:
            stacked = _swap_grouped(stacked, self.groups)
        return _convolve(x, stacked, None, self.conv)

    def mix(self, responses: Tensor, mixer: Tensor) -> Tensor:
        """Combine the responses of a bank with ``mixer: (out, R)`` into this site's output channels."""
        if self.conv is None:
            return F.linear(responses, mixer)
        return _pointwise(responses, mixer, self.conv)

    def point(self, x: Tensor, inp: Tensor) -> Tensor:
        """Combine input channels only: ``inp: (R, in/groups)``, no kernel, no stride."""
        if self.conv is None:
            return self.bank(x, inp)
        return _pointwise(x, inp.repeat(self.groups, 1) if self.groups > 1 else inp, self.conv)

    def fold(self, x: Tensor, parts: int) -> Tensor:
        """Sum ``parts`` equal chunks of the input channels (of each group)."""
        if self.kind == "embedding":
            return x % (self.inp // parts)
        dim = self.channel_dim % x.dim()
        chunks = x.unflatten(dim, (self.groups, parts, self.inp // parts))
        return chunks.sum(dim + 1).flatten(dim, dim + 1)

    def along(self, responses: Tensor, taps: Tensor, axis: int) -> Tensor:
        """Filter each of ``R`` responses along one kernel axis with ``taps: (R, kernel[axis])``."""
        assert self.conv is not None
        shape = [1] * self.conv.axes
        shape[axis] = taps.shape[1]
        weight = taps.repeat(self.groups, 1).view(-1, 1, *shape)
        return _convolve(responses, weight, None, replace(self.conv.only(axis), groups=weight.shape[0]))


CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, g: ConvGeometry) -> Tensor:
    if g.transposed:
        conv = TRANSPOSED[g.axes]
        return conv(x, weight, bias, g.stride, g.inner_padding, g.output_padding, g.groups, g.dilation)
    return CONVOLUTIONS[g.axes](g.pad(x), weight, bias, g.stride, g.inner_padding, g.dilation, g.groups)


def _pointwise(x: Tensor, weight: Tensor, g: ConvGeometry) -> Tensor:
    """A 1×1 convolution with ``weight: (out, in/groups)``."""
    return CONVOLUTIONS[g.axes](x, weight[(...,) + (None,) * g.axes], groups=g.groups)


def _swap_grouped(weight: Tensor, groups: int) -> Tensor:
    """``(g·a, b, *k)`` → ``(g·b, a, *k)``: stored layout of a transposed convolution ↔ canonical. Its own inverse."""
    if groups == 1:
        return weight.transpose(0, 1)
    a, b = weight.shape[0] // groups, weight.shape[1]
    return weight.reshape(groups, a, b, *weight.shape[2:]).transpose(1, 2).reshape(groups * b, a, *weight.shape[2:])
