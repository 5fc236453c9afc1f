"""A method: the algebra of an adapter, as a frozen dataclass whose fields are the user's options.

A :class:`Method` must say which factors a site needs and define ``delta``, the change ΔW. All else follows; what a
method knows beyond that (a low-rank split, a cheaper branch, a way around W) it says by overriding one verb.
A :class:`BlockMethod` is the second, equally small kind: it acts on what a block puts out and has no weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from visionpeft.algebra.factor import Factor
from visionpeft.algebra.site import Site
from visionpeft.algebra.typed import declared, fits, words
from visionpeft.errors import OptionError

Factors = Mapping[str, Tensor]


class Product(NamedTuple):
    """``ΔW = scale·mixer·bank``: the scale apart, so that no scaled copy of a factor is made."""

    mixer: Tensor
    bank: Tensor
    scale: float = 1.0

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """Mixer and bank alone, the scale in the mixer."""
        return (self.mixer if self.scale == 1 else self.scale * self.mixer), self.bank


class Tiled(NamedTuple):
    """``ΔW = scale·(mixer·bank)`` in the order of the canonical ``shape``: ``(out·p, R)`` by ``(R, in·taps/p)``."""

    mixer: Tensor
    bank: Tensor
    shape: tuple[int, ...]
    scale: float = 1.0

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """The same as mixer and bank of rank ``p·R``: each part of a filter is one of its own, zero elsewhere."""
        parts = len(self.mixer) // self.shape[0]
        eye = torch.eye(parts, dtype=self.bank.dtype, device=self.bank.device).view(parts, 1, parts, 1)
        bank = (eye * self.bank.unsqueeze(1)).reshape(-1, *self.shape[1:])
        return self.scale * self.mixer.reshape(self.shape[0], -1), bank


class Spectral(NamedTuple):
    """``ΔW = scale·U·(diag(gains) ⊕ left·right)·V`` on a linear site: U and V frozen, the block in between trains.

    ``u: (out, n)``, ``v: (n, in)``, ``gains: (k,)``, ``left: (n−k, r)``, ``right: (r, n−k)``.
    """

    u: Tensor
    v: Tensor
    gains: Tensor
    left: Tensor
    right: Tensor
    scale: float = 1.0

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """The same as mixer and bank of rank ``k + r``."""
        k = len(self.gains)
        mixer = torch.cat([self.u[:, :k] * self.gains, self.u[:, k:] @ self.left], dim=1)
        return (mixer if self.scale == 1 else self.scale * mixer), torch.cat([self.v[:k], self.right @ self.v[k:]])


Change = Product | Tiled | Spectral


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every method shares: its name, its paper, and the dropout on the input of its branch."""

    dropout: float = 0.0

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""

    def __post_init__(self) -> None:
        hints = declared(type(self))
        for field in fields(self):
            hint = hints[field.name]
            self.check(fits(getattr(self, field.name), hint), field.name, words(hint))
        self.check(0.0 <= self.dropout < 1.0, "dropout", "a number in [0, 1)")

    def check(self, holds: bool, option: str, right: str) -> None:
        """Raise an :class:`OptionError` naming the option and its value unless ``holds``."""
        if not holds:
            raise OptionError(f"{self.name}: {option} = {getattr(self, option)!r}, but it must be {right}")

    def check_count(self, option: str) -> None:
        self.check(getattr(self, option) >= 1, option, "a whole number ≥ 1")

    def options(self) -> dict[str, Any]:
        """The fields as plain values, for files."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @property
    def mergeable(self) -> bool:
        """Whether the adapter can be folded into the weight exactly."""
        return True


@dataclass(frozen=True, kw_only=True)
class Method(Options):
    """Adapts weights."""

    def refuse(self, site: Site) -> str | None:
        """One sentence saying why this site is not supported, or None."""
        return None

    def factors(self, site: Site) -> dict[str, Factor]:
        """The factors of a site, in canonical names and order."""
        raise NotImplementedError

    def delta(self, site: Site, f: Factors) -> Tensor:
        """ΔW in canonical shape: the definition, and the oracle of every other verb."""
        raise NotImplementedError

    # --- what a method may know beyond its definition ------------------------------------------------------------
    def split(self, site: Site, f: Factors) -> tuple[Tensor, Tensor] | None:
        """ΔW as ``mixer (out, R)`` times ``bank (R, in/groups, *kernel)``, or None where there is no such form."""
        return None

    def product(self, site: Site, f: Factors) -> Change | None:
        """The split as the fused kernels take it best: what they can do themselves is left to them."""
        parts = self.split(site, f)
        return None if parts is None else Product(*parts)

    def branch(self, site: Site, f: Factors, x: Tensor) -> Tensor | None:
        """ΔW∘x without ΔW, or None where only the dense form exists."""
        parts = self.split(site, f)
        return None if parts is None else site.mix(site.bank(x, parts[1]), parts[0])

    def direct(self, site: Site, f: Factors, x: Tensor) -> Tensor | None:
        """(W+ΔW)∘x without W, or None."""
        return None

    # --- the effect on the host; multiplicative methods override these two ------------------------------------------
    multiplicative: ClassVar[bool] = False

    def change(self, site: Site, f: Factors, weight: Tensor) -> Tensor:
        """The change of the canonical weight."""
        return self.delta(site, f)

    def effect(self, site: Site, f: Factors, x: Tensor, base: Tensor, weight: Tensor) -> Tensor | None:
        """The change of the output; ``base`` is W∘x (of this site's rows), without bias where it is used."""
        return self.branch(site, in_dtype(f, base.dtype), x)


@dataclass(frozen=True, kw_only=True)
class BlockMethod(Options):
    """Adapts what a block puts out: ``h + residual(h)``."""

    every: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("every")

    @property
    def mergeable(self) -> bool:
        return False

    def factors(self, width: int) -> dict[str, Factor]:
        raise NotImplementedError

    def residual(self, f: Factors, h: Tensor) -> Tensor:
        """``h: (…, width)`` to its change."""
        raise NotImplementedError


Scaling = Literal["alpha/rank", "alpha/sqrt(rank)", "alpha"]


@dataclass(frozen=True, kw_only=True)
class LowRank(Method):
    """A rank and LoRA's scale ``s``.

    Args:
        rank: number of components.
        alpha: numerator of the scale.
        scaling: ``alpha/rank`` (LoRA, 2021), ``alpha/sqrt(rank)`` (rsLoRA, 2023) or ``alpha``.
    """

    rank: int = 8
    alpha: float = 8.0
    scaling: Scaling = "alpha/rank"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("rank")

    @property
    def s(self) -> float:
        return SCALINGS[self.scaling](self.alpha, self.rank)


SCALINGS = {
    "alpha/rank": lambda alpha, rank: alpha / rank,
    "alpha/sqrt(rank)": lambda alpha, rank: alpha / rank**0.5,
    "alpha": lambda alpha, rank: float(alpha),
}


def in_dtype(f: Factors, dtype: torch.dtype) -> Factors:
    """Factors in the precision of an activation."""
    return {name: t.to(dtype) for name, t in f.items()}


def at_least_float32(t: Tensor) -> Tensor:
    """Norms and other sums of squares are not taken in half precision."""
    return t.to(torch.promote_types(t.dtype, torch.float32))
