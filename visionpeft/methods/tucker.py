"""FLoRA: a small core tensor and one factor an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import ClassVar, Literal

from torch import Tensor

from visionpeft.algebra.factor import Factor, normal, zeros
from visionpeft.algebra.method import Factors, Method, Product
from visionpeft.algebra.site import Site
from visionpeft.kernels.tucker.cpu import tucker  # pyright: ignore[reportMissingImports]
from visionpeft.methods.registry import register


@register
@dataclass(frozen=True, kw_only=True)
class FLoRA(Method):
    """``ΔW = s·core ×₀ out ×₁ inp ×₂ k0 ×₃ k1 …`` (Tucker form).

    "FLoRA: Low-Rank Core Space for N-dimension", 2024. ``core: (r_o, r_c, r_k0, …)`` starts at zero, the factors
    ``out: (out, r_o)``, ``inp: (in/groups, r_c)``, ``kj: (k_j, r_kj)`` normal with std ``√½/√r``.

    Args:
        rank: rank of the two channel axes where ``ranks`` does not say.
        ranks: ranks axis by axis, ``(out, inp, k0, k1, …)``; the last entry serves further axes. A rank larger than
            its axis is cut to it.
        scale: the multiplier ``s``.
        kernel: ``factor`` compresses the kernel axes too; ``identity`` leaves them whole (Tucker-2).

    Differs from the released code in working on grouped and depthwise convolutions, and in never building ΔW there.
    """

    rank: int = 8
    ranks: Sequence[int] | None = None
    scale: float = 1.0
    kernel: Literal["factor", "identity"] = "factor"

    name: ClassVar[str] = "flora"
    paper: ClassVar[str] = "FLoRA: Low-Rank Core Space for N-dimension, 2024"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("rank")
        if self.ranks is not None:
            object.__setattr__(self, "ranks", tuple(self.ranks))
            good = len(self.ranks) >= 2 and min(self.ranks) >= 1
            self.check(good, "ranks", "two or more whole numbers ≥ 1")

    def core_shape(self, site: Site) -> tuple[int, ...]:
        ranks = list(self.ranks or (self.rank, self.rank, 2))
        ranks += [ranks[-1]] * (len(site.shape) - len(ranks))
        shape = tuple(min(r, n) for r, n in zip(ranks, site.shape, strict=False))
        return shape[:2] + (site.kernel if self.kernel == "identity" else shape[2:])

    def factors(self, site: Site) -> dict[str, Factor]:
        core = self.core_shape(site)
        sides = zip(_side_names(site), site.shape, core, strict=True)
        compressed = 2 if self.kernel == "identity" else len(core)
        return {
            "core": Factor(core, zeros),
            **{name: Factor((n, r), normal(sqrt(0.5 / r))) for name, n, r in list(sides)[:compressed]},
        }

    def delta(self, site: Site, f: Factors) -> Tensor:
        return self.s_core(site, f, _side_names(site))

    def split(self, site: Site, f: Factors) -> tuple[Tensor, Tensor]:
        return self.product(site, f).pair

    def product(self, site: Site, f: Factors) -> Product:
        inner = [f[name] for name in _side_names(site)[1:] if name in f]
        return Product(f["out"], tucker(f["core"], inner), self.scale)

    def branch(self, site: Site, f: Factors, x: Tensor) -> Tensor:
        """1×1 to r_c channels, the core with its kernel factors as a convolution, 1×1 to the outputs."""
        core = self.s_core(site, f, [None, None, *_side_names(site)[2:]])
        if site.kind == "embedding":  # indices have no channels to reduce first
            return site.mix(site.bank(x, core @ f["inp"].t()), f["out"])
        reduced = site.point(x, f["inp"].t())
        return site.mix(site.bank(reduced, core), f["out"])

    def s_core(self, site: Site, f: Factors, sides: Sequence[str | None]) -> Tensor:
        """``s·core`` multiplied along each axis by the factor named there; None, or a side left whole, is skipped.

        The short kernel axes come first, so that all but the last products are tiny.
        """
        tensor = f["core"] if self.scale == 1 else self.scale * f["core"]
        for axis, name in reversed([*enumerate(sides)]):
            if name is not None and name in f:
                tensor = _along(tensor, f[name], axis)
        return tensor


def _along(tensor: Tensor, factor: Tensor, axis: int) -> Tensor:
    """``tensor (…, r, …)`` times ``factor (n, r)`` along one axis, by as few operations as there are."""
    if axis == tensor.dim() - 1:
        return tensor @ factor.t()
    product = factor @ tensor.flatten(axis + 1)
    return product.unflatten(-1, tensor.shape[axis + 1 :])


def _side_names(site: Site) -> list[str]:
    return ["out", "inp", *(f"k{j}" for j in range(len(site.kernel)))]
