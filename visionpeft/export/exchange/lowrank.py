"""The best product of a given rank for each change: the truncated singular value decomposition."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from visionpeft.algebra.method import Product
from visionpeft.errors import OptionError
from visionpeft.export.exchange.changes import Change

ROUNDING = 5e-7
"""What of a change, as a fraction of its norm, counts as rounding: a few units of float32."""


@dataclass(frozen=True)
class Fit:
    """How well a written layer says what the adapter does.

    Attributes:
        path: the weight.
        rank: of the product that was written; None where the change itself was.
        norm: Frobenius norm of ΔW (before DoRA's gain, where that is written as such).
        error: norm of what is missing.
    """

    path: str
    rank: int | None
    norm: float
    error: float

    @property
    def relative(self) -> float:
        """The error as a fraction of the norm."""
        return self.error / self.norm if self.norm else 0.0


@dataclass(frozen=True)
class Budget:
    """How much of each change is kept: at most ``rank`` components, or as many as hold a share of its energy.

    Neither: all of it. The energy of a matrix is the sum of its squared singular values.

    Raises:
        OptionError: both are given, or one out of range.
    """

    rank: int | None = None
    energy: float | None = None

    def __post_init__(self) -> None:
        if self.rank is not None and self.energy is not None:
            raise OptionError(f"rank = {self.rank} and energy = {self.energy}: give one of them, not both")
        if self.rank is not None and self.rank < 1:
            raise OptionError(f"rank = {self.rank}, but it must be a whole number ≥ 1")
        if self.energy is not None and not 0 < self.energy <= 1:
            raise OptionError(f"energy = {self.energy}, but it must lie in (0, 1]")

    def components(self, values: Tensor) -> int:
        """How many of these singular values, largest first, are kept; at least one."""
        if self.rank is not None:
            return max(1, min(self.rank, len(values)))
        energy = values.square()
        missing = energy.sum() - energy.cumsum(0)
        allowed = max(1 - (self.energy or 1.0), ROUNDING**2) * energy.sum()
        return min(len(values), 1 + int((missing > allowed).sum()))

    def keeps(self, change: Change) -> bool:
        """Whether a product is within the budget as it is."""
        if change.rank is None:
            return False
        full = min(change.site.out, change.site.fan_in)
        return self.energy is None and change.rank <= (self.rank or full)


def fitted(change: Change, budget: Budget) -> tuple[Change, Fit]:
    """The change as a product within the budget, and what that leaves out.

    A product that is within the budget keeps its very factors. The others become the truncated SVD, by Frobenius norm
    the best of its rank (Eckart and Young, 1936), with the singular values shared evenly between the factors.
    """
    if budget.keeps(change):
        return change, Fit(change.path, change.rank, change.additive().norm().item(), 0.0)
    u, values, v = _svd(change)
    kept = budget.components(values)
    roots = values[:kept].sqrt()
    mixer, bank = u[:, :kept] * roots, (roots[:, None] * v[:kept]).view(-1, *change.site.shape[1:])
    missing = values[kept:].norm().item()
    product = Product(mixer.float().contiguous(), bank.float().contiguous())
    return replace(change, product=product, dense=None), Fit(change.path, kept, values.norm().item(), missing)


def total(fits: list[Fit]) -> float:
    """The relative error of all layers together: norms of what is missing over norms of what there is."""
    whole = sum(fit.norm**2 for fit in fits)
    return (sum(fit.error**2 for fit in fits) / whole) ** 0.5 if whole else 0.0


def _svd(change: Change) -> tuple[Tensor, Tensor, Tensor]:
    """Thin SVD of ``ΔW.reshape(out, −1)`` in float64; of a thin product without forming ΔW."""
    if change.product is None or (change.rank or 0) >= min(change.site.out, change.site.fan_in):
        return torch.linalg.svd(change.additive().flatten(1), full_matrices=False)
    left, upper = torch.linalg.qr(change.product.scale * change.product.mixer.double())
    right, lower = torch.linalg.qr(change.product.bank.double().flatten(1).t())
    u, values, v = torch.linalg.svd(upper @ lower.t(), full_matrices=False)
    return left @ u, values, v @ right.t()
