"""The two factors of a low-rank change of a convolution: the weight they make, and their gradients."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from visionpeft.kernels.conv_onednn.cpu import convolution, weight_gradient
from visionpeft.kernels.conv_onednn.geometry import ConvGeometry, swap_grouped


class Factors(NamedTuple):
    """``ΔW = scale·mixer·bank`` with ``mixer: (o, R)`` and ``bank: (R, c, *kernel)``."""

    mixer: Tensor
    bank: Tensor
    geometry: ConvGeometry
    scale: float

    @property
    def rank(self) -> int:
        return self.bank.shape[0]

    @property
    def out(self) -> int:
        return self.mixer.shape[0]

    def added_to(self, weight: Tensor) -> Tensor:
        """``W + ΔW`` as the layer stores it."""
        if not self.geometry.transposed:
            flat = torch.addmm(weight.reshape(self.out, -1), self.mixer, self.bank.flatten(1), alpha=self.scale)
            return flat.view(weight.shape)
        change = (self.mixer @ self.bank.flatten(1)).view(self.out, *self.bank.shape[1:])
        return torch.add(weight, swap_grouped(change, self.geometry.groups), alpha=self.scale)

    def stored_bank(self) -> Tensor:
        """The filters, once for each group, as a layer of this geometry stores them."""
        groups = self.geometry.groups
        bank = self.bank.repeat(groups, *[1] * (self.bank.dim() - 1)) if groups > 1 else self.bank
        return swap_grouped(bank, groups) if self.geometry.transposed else bank


def factor_gradients(
    gy: Tensor, x: Tensor, f: Factors, needs_mixer: bool, needs_bank: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of mixer and bank."""
    # A gradient for R filters and, for the mixer, their responses: two convolutions of R·groups outputs against one
    # weight gradient of all outputs.
    narrow = f.out <= f.geometry.groups * f.rank * (needs_mixer + needs_bank)
    return (_projected if narrow else _thin)(gy, x, f, needs_mixer, needs_bank)


def _projected(gy: Tensor, x: Tensor, f: Factors, needs_mixer: bool, needs_bank: bool) -> tuple:
    """By way of the dense gradient of the weight."""
    shape = f.bank.shape[1:]
    stored = (f.out, *shape)
    if f.geometry.transposed:
        stored = (x.shape[1], f.out // f.geometry.groups, *shape[1:])
    dense = weight_gradient(gy, x, f.geometry, torch.Size(stored))
    if f.geometry.transposed:
        dense = swap_grouped(dense, f.geometry.groups)
    dense = dense.reshape(f.out, -1)
    gm = (dense @ f.bank.flatten(1).t()).mul_(f.scale) if needs_mixer else None
    gb = (f.mixer.t() @ dense).mul_(f.scale).view(f.bank.shape) if needs_bank else None
    return gm, gb


def _thin(gy: Tensor, x: Tensor, f: Factors, needs_mixer: bool, needs_bank: bool) -> tuple:
    """By way of the R filters' responses and of their share of the output gradient."""
    n, groups, rank = gy.shape[0], f.geometry.groups, f.rank
    bank = f.stored_bank()
    rows = gy.reshape(n, groups, f.out // groups, -1)
    gm = gb = None
    if needs_mixer:
        responses = convolution(x, bank, None, f.geometry).reshape(n, groups, rank, -1)
        gm = (responses @ rows.transpose(2, 3)).sum(0).transpose(1, 2).reshape(f.mixer.shape).mul_(f.scale)
    if needs_bank:
        mixer = f.mixer.view(groups, -1, rank).transpose(1, 2).contiguous()
        mixed = (mixer @ rows).view(n, groups * rank, *gy.shape[2:])
        gb = weight_gradient(mixed, x, f.geometry, bank.shape)
        gb = swap_grouped(gb, groups) if f.geometry.transposed else gb
        gb = gb.reshape(groups, *f.bank.shape).sum(0).mul_(f.scale)
    return gm, gb
