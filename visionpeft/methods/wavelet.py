"""WaRA: low rank per wavelet subband of the weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal

import torch
from torch import Tensor

from visionpeft.algebra.factor import Factor, kaiming, zeros
from visionpeft.algebra.method import Factors, LowRank, Product
from visionpeft.algebra.site import Site
from visionpeft.kernels.eager.guard import usable
from visionpeft.kernels.wavelet.cpu import synthesis  # pyright: ignore[reportMissingImports]
from visionpeft.methods._wavelet import Wavelet, wavelet
from visionpeft.methods.registry import register

BANDS = ("LL", "LH", "HL", "HH")


@register
@dataclass(frozen=True, kw_only=True)
class WaRA(LowRank):
    """``ΔW = s·T_oᵀ·C·T_i`` with the coefficient matrix C low-rank per subband: ``C_band = B_band·A_band``.

    "WaRA: Wavelet Low Rank Adaptation", 2025. ``T_n`` is the orthogonal periodised wavelet transform; the first letter
    of a band is the output axis, the second the input axis. ``B_LL: (out/2, r)`` zero, ``A_LL: (r, in/2)`` kaiming, and
    so on. With one factor pair over all of C this would be LoRA with rotated factors (``T_oᵀB · A·T_i``): only
    factors per subband, or a subset of subbands, make it a different method. The inverse transform is folded onto the
    factors, so C and ΔW are never formed and a step costs O(r(o+c)) beyond LoRA's.

    Args:
        wavelet: any orthogonal PyWavelets family.
        levels: number of levels; ``L`` is the approximation of the last, ``H`` all details together.
        subbands: any subset of LL, LH, HL, HH.
        taps: on convolutions, ``each`` kernel tap has its own ``A_*: (r, in/2, *k)``; ``shared``: one for all taps.
    """

    wavelet: str = "haar"
    levels: int = 1
    subbands: Sequence[str] = BANDS
    taps: Literal["each", "shared"] = "each"

    name: ClassVar[str] = "wara"
    paper: ClassVar[str] = "WaRA: Wavelet Low Rank Adaptation, 2025"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("levels")
        object.__setattr__(self, "subbands", tuple(self.subbands))
        good = self.subbands and set(self.subbands) <= set(BANDS) and len(set(self.subbands)) == len(self.subbands)
        self.check(bool(good), "subbands", "a selection of LL, LH, HL, HH without repetition")
        _ = self.transform  # an unknown wavelet is an error now, and compiled code finds its filters ready

    @cached_property
    def transform(self) -> Wavelet:
        return wavelet(self.wavelet, self.levels)

    def factors(self, site: Site) -> dict[str, Factor]:
        kernel = site.kernel if self.taps == "each" else ()
        factors = {}
        for band in self.subbands:
            rows = self.transform.band_size(band[0], site.out)
            columns = self.transform.band_size(band[1], site.inp)
            factors[f"A_{band}"] = Factor((self.rank, columns, *kernel), kaiming(site.fan_in))
            factors[f"B_{band}"] = Factor((rows, self.rank), zeros)
        return factors

    def delta(self, site: Site, f: Factors) -> Tensor:
        coefficients = torch.cat([self.block_row(site, f, "L"), self.block_row(site, f, "H")])
        t_out = self.transform.matrix(site.out, coefficients)
        t_inp = self.transform.matrix(site.inp, coefficients)
        change = torch.movedim(torch.tensordot(t_inp, coefficients, dims=([0], [1])), 0, 1)  # pyright: ignore[reportArgumentType]
        change = torch.tensordot(t_out, change, dims=([0], [0]))[: site.out, : site.inp]  # pyright: ignore[reportArgumentType]
        return self.s * change.expand(site.shape)

    def block_row(self, site: Site, f: Factors, row: str) -> Tensor:
        """The rows L or H of C, with a zero block where a subband is left out: ``(rows, in, *taps)``."""
        sample, blocks = f[f"A_{self.subbands[0]}"], []
        taps = (1,) * len(site.kernel) if self.taps == "shared" else site.kernel
        for band in (row + "L", row + "H"):
            shape = (
                self.transform.band_size(row, site.out),
                self.transform.band_size(band[1], site.inp),
                *taps,
            )
            if band in self.subbands:
                blocks.append(torch.tensordot(f[f"B_{band}"], f[f"A_{band}"], dims=1).view(shape))
            else:
                blocks.append(sample.new_zeros(shape))
        return torch.cat(blocks, dim=1)

    def split(self, site: Site, f: Factors) -> tuple[Tensor, Tensor]:
        return self.product(site, f).pair

    def product(self, site: Site, f: Factors) -> Product:
        """All bands as one LoRA of rank ``r·|bands|``, the inverse transform folded onto its factors."""
        mixer, bank = self.side(f, "B", 0, site.out), self.side(f, "A", 1, site.inp)
        if self.taps == "shared":
            bank = bank[(...,) + (None,) * len(site.kernel)].expand(-1, *site.shape[1:])
        return Product(mixer, bank, self.s)

    def side(self, f: Factors, side: str, axis: int, n: int) -> Tensor:
        """The factors A or B of all bands after the inverse transform, side by side."""
        factors, letters = [f[f"{side}_{band}"] for band in self.subbands], "".join(b[axis] for b in self.subbands)
        if usable(*factors):
            return synthesis(factors, letters, *self.transform.arguments, n, axis)
        made = [
            self.transform.synthesis(factor if axis == 0 else factor.transpose(0, 1), letter, n)
            for factor, letter in zip(factors, letters, strict=True)
        ]
        return torch.cat([t if axis == 0 else t.transpose(0, 1) for t in made], dim=1 - axis)
