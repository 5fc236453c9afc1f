"""LoRA-C: low rank across kernel axes, in the two public layouts."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, Literal

import torch
from torch import Tensor

from visionpeft.algebra.factor import Factor, kaiming, zeros
from visionpeft.algebra.method import Factors, LowRank, Product, Tiled
from visionpeft.algebra.site import Site
from visionpeft.kernels.recompute.cpu import made_by  # pyright: ignore[reportMissingImports]
from visionpeft.methods.registry import register


@register
@dataclass(frozen=True, kw_only=True)
class LoRAC(LowRank):
    """``ΔW = s·(B·A)`` reshaped, or separable over the kernel.

    "LoRA-C: Parameter-Efficient Fine-Tuning of Robust CNN for IoT Devices", 2024.

    Args:
        layout: ``loralib`` (default): ``A: (r·k, in·k)``, ``B: (out/groups·k, r·k)``, ``(B·A).view(W.shape)``, square
            2-D kernels only. ``separable``: ``A: (r, in/groups, k_last)``, ``B: (out, *k_before, r)`` for any number of
            kernel axes. With few channels the dense form is the cheaper one, since the rank grows with k².
    """

    layout: Literal["loralib", "separable"] = "loralib"

    name: ClassVar[str] = "lora_c"
    paper: ClassVar[str] = "LoRA-C: Parameter-Efficient Fine-Tuning of Robust CNN for IoT Devices, 2024"

    def refuse(self, site: Site) -> str | None:
        square = len(site.kernel) == 2 and site.kernel[0] == site.kernel[1]
        if self.layout == "loralib" and not square:
            return "the loralib layout is defined for square 2-D kernels only; layout: separable takes any"
        if self.layout == "loralib" and site.is_slice and site.groups > 1:
            return "the loralib layout reshapes over all groups and cannot adapt a slice of rows"
        return None

    def factors(self, site: Site) -> dict[str, Factor]:
        if self.layout == "separable":
            *before, last = site.kernel or (1,)
            a, b = (self.rank, site.inp, last), (site.out, *before, self.rank)
        else:
            k, g = site.kernel[0], site.groups
            a, b = (self.rank * k, site.inp * g * k), (site.out // g * k, self.rank * k)
        return {"A": Factor(a, kaiming(prod(a[1:]))), "B": Factor(b, zeros)}

    def delta(self, site: Site, f: Factors) -> Tensor:
        if self.layout == "loralib":
            return self.s * (f["B"] @ f["A"]).view(site.shape)
        taps = torch.tensordot(f["B"], f["A"], dims=1)  # (out, *before, in, last)
        return self.s * torch.movedim(taps, -2, 1).reshape(site.shape)

    def split(self, site: Site, f: Factors) -> tuple[Tensor, Tensor] | None:
        """Each row of A becomes one filter for every place that it does not cover, zero elsewhere."""
        product = self.product(site, f)
        return product and product.pair

    def product(self, site: Site, f: Factors) -> Product | Tiled | None:
        if self.layout == "separable":
            bank = made_by(_at_each_place(f["A"], site.kernel), _at_each_place, (f["A"],), (site.kernel,))
            return Product(f["B"].reshape(site.out, -1), bank, self.s)
        if site.groups > 1:
            return None  # one row of B then serves several output channels
        if site.kernel == (1, 1):
            return Product(f["B"], f["A"].view(-1, *site.shape[1:]), self.s)
        return Tiled(f["B"], f["A"], site.shape, self.s)


def _at_each_place(rows: Tensor, kernel: tuple[int, ...]) -> Tensor:
    """``(r, in, k_last)`` as ``(places·r, in, *kernel)``: along the last axis at every place of those before."""
    places = prod(kernel[:-1])
    eye = torch.eye(places, dtype=rows.dtype, device=rows.device).view(places, 1, 1, places, 1)
    return (eye * rows.unsqueeze(2)).reshape(-1, rows.shape[1], *kernel)
