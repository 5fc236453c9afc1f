"""The two factors of a low-rank change of a convolution: the weight they make, and their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Size, Tensor

from visionpeft.kernels.conv_onednn.cpu import convolution, weight_gradient
from visionpeft.kernels.conv_onednn.geometry import ConvGeometry, swap_grouped, taps
from visionpeft.kernels.recompute.cpu import Recipe, source_of
from visionpeft.kernels.recompute.saving import keep

SLICES = 2
"""Convolutions of slices of the channels take so many times longer than their operations say (AVX2, 3×3)."""


class Way(NamedTuple):
    """What an autograd function of this folder is told beside its tensors."""

    geometry: ConvGeometry
    scale: float
    of_x: Recipe | None
    of_mixer: Recipe | None
    of_bank: Recipe | None

    @classmethod
    def of(cls, x: Tensor, mixer: Tensor, bank: Tensor, geometry: ConvGeometry, scale: float) -> Way:
        return cls(geometry, scale, source_of(x), source_of(mixer), source_of(bank))

    def factors(self, mixer: Tensor, bank: Tensor, weight: Tensor) -> Factors:
        """With the layer's stored weight, which says the shape."""
        return Factors(mixer, bank, self.geometry, self.scale, canonical(weight, self.geometry))

    def keep(self, ctx: Any, x: Tensor | None, weight: Tensor, mixer: Tensor, bank: Tensor, *more: Tensor | None):
        """Save for backward, in place of what can be made again its recipe."""
        keep(ctx, x if x is None else self.of_x or x, weight, self.of_mixer or mixer, self.of_bank or bank, *more)


class Factors(NamedTuple):
    """``ΔW = scale·(mixer·bank)`` seen as ``shape = (o, c, *kernel)``, with ``mixer: (o·p, R)``.

    As a rule p is 1 and ``bank: (R, c, *kernel)`` holds R filters. Otherwise ``bank: (R, c·taps/p)``: a row of it
    covers a p-th part of a filter, and each output has p rows of the mixer, one a part.
    """

    mixer: Tensor
    bank: Tensor
    geometry: ConvGeometry
    scale: float
    shape: Size

    @property
    def rank(self) -> int:
        return self.bank.shape[0]

    @property
    def out(self) -> int:
        return self.shape[0]

    @property
    def parts(self) -> int:
        return self.mixer.shape[0] // self.out

    def added_to(self, weight: Tensor) -> Tensor:
        """``W + ΔW`` as the layer stores it."""
        if not self.geometry.transposed:
            rows = weight.reshape(len(self.mixer), -1)
            return torch.addmm(rows, self.mixer, self.bank.flatten(1), alpha=self.scale).view(weight.shape)
        return torch.add(weight, self.stored_change(), alpha=self.scale)

    def stored_change(self) -> Tensor:
        """``mixer·bank`` as the layer stores it, without the scale."""
        change = (self.mixer @ self.bank.flatten(1)).view(self.shape)
        return swap_grouped(change, self.geometry.groups) if self.geometry.transposed else change

    def stored_bank(self) -> Tensor:
        """The filters, once for each group, as a layer of this geometry stores them."""
        groups = self.geometry.groups
        bank = self.bank.repeat(groups, *[1] * (self.bank.dim() - 1)) if groups > 1 else self.bank
        return swap_grouped(bank, groups) if self.geometry.transposed else bank

    def slices(self) -> Iterator[tuple[slice, slice, Factors]]:
        """For each part: the input channels it touches, what it covers of their weights, and its factors alone."""
        size, length = taps(self.shape[2:]), self.bank.shape[1]
        mixers = self.mixer.view(self.out, self.parts, -1)
        for part in range(self.parts):
            start, stop = part * length, (part + 1) * length
            first, last = start // size, -(-stop // size)
            before, after = start - first * size, last * size - stop
            shape = Size((self.out, last - first, *self.shape[2:]))
            bank = F.pad(self.bank, (before, after)).view(-1, *shape[1:])
            covered = slice(before, before + length)
            yield slice(first, last), covered, self._replace(mixer=mixers[:, part], bank=bank, shape=shape)


def canonical(weight: Tensor, geometry: ConvGeometry) -> Size:
    """``(o, c, *kernel)`` of a weight as the layer stores it."""
    if not geometry.transposed:
        return weight.shape
    inputs, outputs, *kernel = weight.shape
    return Size((outputs * geometry.groups, inputs // geometry.groups, *kernel))


def dense_gradient(gy: Tensor, x: Tensor, f: Factors) -> Tensor:
    """The gradient of the whole weight, a row an output: ``(o, c·taps)``."""
    g, shape = f.geometry, f.shape
    if g.transposed:
        shape = Size((x.shape[1], f.out // g.groups, *shape[2:]))
    dense = weight_gradient(gy, x, g, shape)
    return (swap_grouped(dense, g.groups) if g.transposed else dense).reshape(f.out, -1)


def dense_is_cheaper(f: Factors, needs_mixer: bool, needs_bank: bool) -> bool:
    """Whether the layer is so narrow that the gradients of its factors are had best from that of the whole weight.

    A gradient for R filters and, for the mixer, their responses: two convolutions of R·groups outputs against one
    weight gradient of all outputs.
    """
    slow = SLICES if f.parts > 1 else 1
    return f.out <= slow * f.geometry.groups * f.rank * (needs_mixer + needs_bank)


def from_dense(dense: Tensor, f: Factors, needs_mixer: bool, needs_bank: bool) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of mixer and bank from :func:`dense_gradient`'s."""
    rows = dense.reshape(len(f.mixer), -1)
    gm = (rows @ f.bank.flatten(1).t()).mul_(f.scale) if needs_mixer else None
    gb = (f.mixer.t() @ rows).mul_(f.scale).view(f.bank.shape) if needs_bank else None
    return gm, gb


def from_filters(
    gy: Tensor, x: Tensor, f: Factors, needs_mixer: bool, needs_bank: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of mixer and bank by way of the R filters' responses and of their share of the output gradient."""
    if f.parts > 1:
        return _from_parts(gy, x, f, needs_mixer, needs_bank)
    n, groups, rank = gy.shape[0], f.geometry.groups, f.rank
    bank = f.stored_bank()
    rows = gy.reshape(n, groups, f.out // groups, -1)
    gm = gb = None
    if needs_mixer:
        responses = convolution(x, bank, None, f.geometry).reshape(n, groups, rank, -1)
        gm = (responses @ rows.transpose(2, 3)).sum(0).transpose(1, 2).reshape(f.mixer.shape).mul_(f.scale)
    if needs_bank:
        mixer = f.mixer.reshape(groups, -1, rank).transpose(1, 2).contiguous()
        mixed = (mixer @ rows).view(n, groups * rank, *gy.shape[2:])
        gb = weight_gradient(mixed, x, f.geometry, bank.shape)
        gb = swap_grouped(gb, groups) if f.geometry.transposed else gb
        gb = gb.reshape(groups, *f.bank.shape).sum(0).mul_(f.scale)
    return gm, gb


def _from_parts(gy: Tensor, x: Tensor, f: Factors, needs_mixer: bool, needs_bank: bool) -> tuple:
    """Each part sees its own slice of the input channels only."""
    mixers, gb = [], torch.zeros_like(f.bank) if needs_bank else None
    for channels, covered, own in f.slices():
        gm, filters = from_filters(gy, x[:, channels], own, needs_mixer, needs_bank)
        mixers.append(gm)
        if gb is not None and filters is not None:
            gb += filters.flatten(1)[:, covered]
    return torch.stack(mixers, dim=1).view(f.mixer.shape) if needs_mixer else None, gb
