"""CP-LoRA: the change of a weight as a sum of rank-one tensors."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from torch import Tensor

from visionpeft.algebra.factor import Factor, centred, kaiming, zeros
from visionpeft.algebra.method import Factors, LowRank, Product
from visionpeft.algebra.site import Site
from visionpeft.kernels.outer.cpu import outer  # pyright: ignore[reportMissingImports]
from visionpeft.methods.registry import register


@register
@dataclass(frozen=True, kw_only=True)
class CPLoRA(LowRank):
    """``ΔW[o,i,h,w,…] = s·Σ_q out[o,q]·inp[i,q]·k0[h,q]·k1[w,q]…``

    "LoRA-based methods on Unet for transfer learning in Subarachnoid Hematoma Segmentation", 2025. Factors
    ``out: (out, R)``, ``inp: (in/groups, R)`` and one ``kj: (k_j, R)`` a kernel axis; R(o + c + Σk) parameters. The
    rank is not clamped: the paper finds over-parameterised ranks the best. ``out`` starts at zero; the kernel factors
    start as a centred delta with noise, so that their product does not shrink the gradient of ``out``.
    """

    name: ClassVar[str] = "cp_lora"
    paper: ClassVar[str] = (
        "LoRA-based methods on Unet for transfer learning in Subarachnoid Hematoma Segmentation, 2025"
    )

    def factors(self, site: Site) -> dict[str, Factor]:
        taps = {f"k{j}": Factor((k, self.rank), centred()) for j, k in enumerate(site.kernel)}
        return {
            "out": Factor((site.out, self.rank), zeros),
            "inp": Factor((site.inp, self.rank), kaiming(site.inp)),
            **taps,
        }

    def delta(self, site: Site, f: Factors) -> Tensor:
        # One rank axis in front, then each factor brings its own axis to the end.
        terms = self.s * f["out"].t()
        for name in ("inp", *_kernel_names(site)):
            terms = terms.unsqueeze(-1) * _beside(f[name].t(), terms.dim())
        return terms.sum(0)

    def split(self, site: Site, f: Factors) -> tuple[Tensor, Tensor]:
        return self.product(site, f).pair

    def product(self, site: Site, f: Factors) -> Product:
        return Product(f["out"], outer([f["inp"], *(f[name] for name in _kernel_names(site))]), self.s)

    def branch(self, site: Site, f: Factors, x: Tensor) -> Tensor | None:
        """1×1 to R channels, a depthwise filter along each kernel axis, 1×1 to the outputs."""
        if prod(site.kernel) == 1:
            return super().branch(site, f, x)
        responses = site.point(x, f["inp"].t())
        for axis, name in enumerate(_kernel_names(site)):
            responses = site.along(responses, f[name].t(), axis)
        return site.mix(responses, self.s * f["out"])


def _kernel_names(site: Site) -> list[str]:
    return [f"k{j}" for j in range(len(site.kernel))]


def _beside(factor: Tensor, axes: int) -> Tensor:
    """``(R, n)`` viewed so that it broadcasts as a new last axis beside ``axes - 1`` others."""
    return factor.view(factor.shape[0], *[1] * (axes - 1), factor.shape[1])
