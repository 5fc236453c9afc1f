"""WaRA's two other forms: on activations, and the tiny one on a frozen SVD."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpeft.algebra.factor import Factor, kaiming, ones, svd_part, zeros
from visionpeft.algebra.method import Factors, LowRank, Method
from visionpeft.algebra.site import Site
from visionpeft.errors import SiteError
from visionpeft.methods._wavelet import Wavelet, wavelet
from visionpeft.methods.registry import register

MOST_CLASS_TOKENS = 5


@register
@dataclass(frozen=True, kw_only=True)
class WaRAActivation(LowRank):
    """``y += s·up(IDWT₂(gain_band ⊙ f(DWT₂(down x))))`` for token features on an H×W grid.

    "WaRA: Wavelet Low Rank Adaptation", second version, 2025. ``down: (r, in)`` kaiming, ``up: (out, r)`` zero,
    ``gain: (4,)`` ones in the order LL LH HL HH. The transform runs in the r-dimensional bottleneck. Class tokens in
    front of the grid bypass it. With ``nonlinearity: none`` and ``gains: false`` it is LoRA and merges; else it does
    not.

    Args:
        wavelet, levels: as in ``wara``.
        grid: (H, W) of the tokens; None takes a square.
        class_tokens: tokens in front of the grid; None takes the fewest that leave a square.
        nonlinearity: none or gelu, on the coefficients.
        gains: whether the bands have a trained gain.
    """

    wavelet: str = "haar"
    levels: int = 1
    grid: tuple[int, int] | None = None
    class_tokens: int | None = None
    nonlinearity: Literal["none", "gelu"] = "none"
    gains: bool = True

    name: ClassVar[str] = "wara_activation"
    paper: ClassVar[str] = "WaRA: Wavelet Low Rank Adaptation, 2025 (activation form)"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("levels")
        if self.grid is not None:
            object.__setattr__(self, "grid", tuple(self.grid))
            self.check(len(self.grid) == 2 and all(n >= 1 for n in self.grid), "grid", "two whole numbers (H, W)")
        _ = self.transform

    @cached_property
    def transform(self) -> Wavelet:
        return wavelet(self.wavelet, self.levels)

    @property
    def mergeable(self) -> bool:
        return self.nonlinearity == "none" and not self.gains

    def refuse(self, site: Site) -> str | None:
        return None if site.kind == "linear" else "the activation form needs token features, so it adapts Linear only"

    def factors(self, site: Site) -> dict[str, Factor]:
        gain = {"gain": Factor((4,), ones)} if self.gains else {}
        return {
            "down": Factor((self.rank, site.inp), kaiming(site.inp)),
            "up": Factor((site.out, self.rank), zeros),
            **gain,
        }

    def delta(self, site: Site, f: Factors) -> Tensor:
        if not self.mergeable:
            raise SiteError(
                "wara_activation with gains or a nonlinearity is no change of the weight and cannot be merged"
            )
        return self.s * f["up"] @ f["down"]

    def branch(self, site: Site, f: Factors, x: Tensor) -> Tensor:
        hidden = F.linear(x, f["down"])
        if self.gains or self.nonlinearity != "none":
            tokens = self.class_token_count(hidden)
            grid = self.grid or (isqrt(hidden.shape[-2] - tokens),) * 2
            image = self.filtered(hidden[..., tokens:, :].unflatten(-2, grid), f)
            hidden = torch.cat([hidden[..., :tokens, :], image.flatten(-3, -2)], dim=-2)
        return F.linear(hidden, self.s * f["up"])

    def class_token_count(self, hidden: Tensor) -> int:
        count = hidden.shape[-2] if hidden.dim() > 2 else 0
        for tokens in range(MOST_CLASS_TOKENS + 1) if self.class_tokens is None else [self.class_tokens]:
            cells = count - tokens
            if cells > 0 and (cells == self.grid[0] * self.grid[1] if self.grid else isqrt(cells) ** 2 == cells):
                return tokens
        raise SiteError(
            f"wara_activation: {count} tokens with grid = {self.grid}, class_tokens = {self.class_tokens} are no grid; "
            "give grid: [H, W] and class_tokens so that H·W + class_tokens is the number of tokens"
        )

    def filtered(self, image: Tensor, f: Factors) -> Tensor:
        """``(…, H, W, r)`` through the transform, the nonlinearity, the gains, and back."""
        height, width = image.shape[-3:-1]
        rows, columns = self.transform.matrix(height, image), self.transform.matrix(width, image)
        padding = (0, 0, 0, columns.shape[0] - width, 0, rows.shape[0] - height)
        bands = torch.einsum("ah,bw,...hwr->...abr", rows, columns, F.pad(image, padding))
        if self.nonlinearity == "gelu":
            bands = F.gelu(bands)
        if self.gains:
            bands = bands * self.gain_map(f["gain"], rows.shape[0], columns.shape[0])
        return torch.einsum("ah,bw,...abr->...hwr", rows, columns, bands)[..., :height, :width, :]

    def gain_map(self, gain: Tensor, height: int, width: int) -> Tensor:
        """The four gains spread over their coefficients: ``(H, W, 1)``."""
        table = gain.view(2, 2)
        for dim, size in ((0, height), (1, width)):
            counts = [self.transform.band_size(letter, size) for letter in "LH"]
            pieces = [table.narrow(dim, i, 1).expand(*_with(table, dim, count)) for i, count in enumerate(counts)]
            table = torch.cat(pieces, dim=dim)
        return table.unsqueeze(-1)


def _with(table: Tensor, dim: int, size: int) -> list[int]:
    return [size if d == dim else n for d, n in enumerate(table.shape)]


@register
@dataclass(frozen=True, kw_only=True)
class WaRATiny(Method):
    """``ΔW = scale·U_r·diag(c)·V_rᵀ``, or ``scale·U_r·C·V_rᵀ``, on the frozen leading singular vectors of W.

    "WaRA: Wavelet Low Rank Adaptation", 2025. ``c: (r,)`` or ``C: (r, r)`` zero; ``U: (out, r)`` and
    ``Vh: (r, fan_in)`` are saved with the adapter.

    Args:
        rank: r, at most the number of singular values.
        core: ``diagonal`` (r parameters) or ``matrix`` (r²).
        scale: a plain multiplier.
    """

    rank: int = 8
    core: Literal["diagonal", "matrix"] = "diagonal"
    scale: float = 1.0

    name: ClassVar[str] = "wara_tiny"
    paper: ClassVar[str] = "WaRA: Wavelet Low Rank Adaptation, 2025 (tiny form)"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("rank")

    def refuse(self, site: Site) -> str | None:
        n = min(site.out, site.fan_in)
        return f"rank = {self.rank} exceeds the {n} singular values of this weight" if self.rank > n else None

    def factors(self, site: Site) -> dict[str, Factor]:
        core = {"c": Factor((self.rank,), zeros)}
        if self.core == "matrix":
            core = {"C": Factor((self.rank, self.rank), zeros)}
        return {
            **core,
            "U": Factor((site.out, self.rank), svd_part("U"), trainable=False),
            "Vh": Factor((self.rank, site.fan_in), svd_part("Vh"), trainable=False),
        }

    def delta(self, site: Site, f: Factors) -> Tensor:
        core = f["C"] if self.core == "matrix" else torch.diag(f["c"])
        return self.scale * (f["U"] @ core @ f["Vh"]).view(site.shape)

    def split(self, site: Site, f: Factors) -> tuple[Tensor, Tensor]:
        mixer = f["U"] @ f["C"] if self.core == "matrix" else f["U"] * f["c"]
        return self.scale * mixer, f["Vh"].view(-1, *site.shape[1:])
