"""SALT: scale and shift the leading singular values, low rank on the rest."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Literal

import torch
from torch import Tensor

from visionpeft.algebra.factor import Factor, kaiming, ones, svd_part, zeros
from visionpeft.algebra.method import Change, Factors, Method, Spectral
from visionpeft.algebra.site import Site
from visionpeft.kernels.recompute.cpu import made_by  # pyright: ignore[reportMissingImports]
from visionpeft.methods.registry import register


@register
@dataclass(frozen=True, kw_only=True)
class SALT(Method):
    """``ΔW = U_k·diag((scale−1)·S_k + shift)·Vh_k + (U_p·X)(Y·Vh_p)`` on ``W.reshape(out, −1) = U·diag(S)·Vh``.

    "SALT: Singular Value Adaptation with Low-Rank Transformation", 2025. ``scale: (k,)`` starts at one, ``shift: (k,)``
    at zero, ``X: (n−k, r)`` kaiming, ``Y: (r, n−k)`` zero. The SVD is taken once and saved with the adapter, since it
    is unique only up to signs.

    Args:
        top: k, a count, or a fraction of the n singular values.
        rank: r of the remaining part.
        rectify: ``none``; ``diagonal`` keeps the scaled singular values from going negative; ``matrix`` is the ReLU of
            the released code over the whole n×n matrix, which destroys the low rank (dense path only).
    """

    top: int | float = 0.1
    rank: int = 8
    rectify: Literal["none", "diagonal", "matrix"] = "none"

    name: ClassVar[str] = "salt"
    paper: ClassVar[str] = "SALT: Singular Value Adaptation with Low-Rank Transformation, 2025"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("rank")
        good = self.top >= 1 if isinstance(self.top, int) else 0 < self.top <= 1
        self.check(good, "top", "a count ≥ 1 or a fraction in (0, 1]")

    def refuse(self, site: Site) -> str | None:
        n = min(site.out, site.fan_in)
        if isinstance(self.top, int) and self.top > n:
            return f"top = {self.top} exceeds the {n} singular values of this weight; a fraction fits any site"
        return None

    def leading(self, site: Site) -> int:
        """k for this site."""
        return self.top if isinstance(self.top, int) else ceil(self.top * min(site.out, site.fan_in))

    def factors(self, site: Site) -> dict[str, Factor]:
        n, k = min(site.out, site.fan_in), self.leading(site)
        return {
            "scale": Factor((k,), ones),
            "shift": Factor((k,), zeros),
            "X": Factor((n - k, self.rank), kaiming(self.rank)),
            "Y": Factor((self.rank, n - k), zeros),
            "U": Factor((site.out, n), svd_part("U"), trainable=False),
            "S": Factor((n,), svd_part("S"), trainable=False),
            "Vh": Factor((n, site.fan_in), svd_part("Vh"), trainable=False),
        }

    def leading_values(self, f: Factors) -> Tensor:
        """The k scaled and shifted singular values."""
        values = f["scale"] * f["S"][: len(f["scale"])] + f["shift"]
        return values if self.rectify == "none" else values.relu()

    def leading_change(self, f: Factors) -> Tensor:
        """Their change. Written without ``values − S``, which would cancel."""
        s = f["S"][: len(f["scale"])]
        change = (f["scale"] - 1) * s + f["shift"]
        return change if self.rectify == "none" else torch.maximum(change, -s)

    def delta(self, site: Site, f: Factors) -> Tensor:
        k = len(f["scale"])
        change = torch.block_diag(torch.diag(self.leading_change(f)), f["X"] @ f["Y"])
        if self.rectify == "matrix":
            # relu(Σ + change) − Σ = max(change, −Σ), entry by entry
            change = torch.maximum(change, -torch.diag(f["S"]))
            return (f["U"] @ change @ f["Vh"]).view(site.shape)
        low_rank = (f["U"][:, k:] @ f["X"]) @ (f["Y"] @ f["Vh"][k:])
        return (f["U"][:, :k] * change.diagonal()[:k] @ f["Vh"][:k] + low_rank).view(site.shape)

    def split(self, site: Site, f: Factors) -> tuple[Tensor, Tensor] | None:
        if self.rectify == "matrix":
            return None
        mixer = made_by(_mixer(f["U"], change := self.leading_change(f), f["X"]), _mixer, (f["U"], change, f["X"]))
        bank = made_by(_bank(f["Vh"], f["Y"], site), _bank, (f["Vh"], f["Y"]), (site,))
        return mixer, bank

    def product(self, site: Site, f: Factors) -> Change | None:
        """On a linear layer as it stands in the spectrum, for the kernel that knows which directions are frozen."""
        if self.rectify == "matrix" or site.kind != "linear":
            return super().product(site, f)
        return Spectral(f["U"], f["Vh"], self.leading_change(f), f["X"], f["Y"])

    def direct(self, site: Site, f: Factors, x: Tensor) -> Tensor | None:
        """``U·(Σ'·(Vh·x))``: the whole weight from its spectrum, without W. Pays when k is near n."""
        if self.rectify == "matrix":
            return None
        k = len(f["scale"])
        rest = f["U"][:, k:] * f["S"][k:] + (f["U"][:, k:] @ f["X"]) @ f["Y"]
        mixer = torch.cat([f["U"][:, :k] * self.leading_values(f), rest], dim=1)
        return site.mix(site.bank(x, f["Vh"].view(-1, *site.shape[1:])), mixer)


def _mixer(u: Tensor, change: Tensor, x: Tensor) -> Tensor:
    k = len(change)
    return torch.cat([u[:, :k] * change, u[:, k:] @ x], dim=1)


def _bank(vh: Tensor, y: Tensor, site: Site) -> Tensor:
    k = len(vh) - y.shape[1]
    return torch.cat([vh[:k], y @ vh[k:]]).view(-1, *site.shape[1:])
