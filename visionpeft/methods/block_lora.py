"""Block-LoRA: LoRA's factors cut into blocks that share one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from visionpeft.algebra.factor import Factor, kaiming, zeros
from visionpeft.algebra.method import Factors, LowRank, Product, Scaling
from visionpeft.algebra.site import Site
from visionpeft.methods.registry import register


@register
@dataclass(frozen=True, kw_only=True)
class BlockLoRA(LowRank):
    """``ΔW = s·Σ_i B_i·A`` (``share: rank``) or ``ΔW·x = s·B·A(x_1 + … + x_n)`` (``share: input``).

    "One Head Eight Arms: Block Matrix based Low Rank Adaptation for CLIP-based Few-Shot Learning", 2025.
    ``share: rank``: ``A: (r/n, in/groups, *k)``, ``B: (out, r)``. ``share: input``: ``A: (r, in/groups/n, *k)``,
    ``B: (out, r)``. Both have ``r·o + r·c/n`` parameters.

    Args:
        blocks: number of blocks n; divides the rank (``share: rank``) or the input channels (``share: input``).
        share: what the blocks cut.
        tied: with ``share: rank`` all B_i get the same gradients from a zero start and stay equal; True stores one,
            ``B: (out, r/n)``, times n: the same function and training with n times fewer parameters.
    """

    rank: int = 2
    alpha: float = 1.0
    scaling: Scaling = "alpha/sqrt(rank)"
    blocks: int = 2
    share: Literal["rank", "input"] = "rank"
    tied: bool = False

    name: ClassVar[str] = "block_lora"
    paper: ClassVar[str] = (
        "One Head Eight Arms: Block Matrix based Low Rank Adaptation for CLIP-based Few-Shot Learning, 2025"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("blocks")
        self.check(not (self.tied and self.share == "input"), "tied", "false with share: input, which has one B")
        self.check(
            self.share == "input" or self.rank % self.blocks == 0,
            "blocks",
            f"a divisor of rank = {self.rank}",
        )

    def refuse(self, site: Site) -> str | None:
        if self.share == "input" and site.inp % self.blocks:
            return f"blocks = {self.blocks} does not divide the {site.inp} input channels (of a group)"
        return None

    def factors(self, site: Site) -> dict[str, Factor]:
        rows, chunk = (
            (self.rank // self.blocks, site.inp) if self.share == "rank" else (self.rank, site.inp // self.blocks)
        )
        return {
            "A": Factor((rows, chunk, *site.kernel), kaiming(site.fan_in)),
            "B": Factor((site.out, rows if self.tied else self.rank), zeros),
        }

    def delta(self, site: Site, f: Factors) -> Tensor:
        a, b = f["A"], f["B"]
        if self.share == "input":
            return self.s * torch.cat([torch.tensordot(b, a, dims=1)] * self.blocks, dim=1)
        parts = [b] * self.blocks if self.tied else b.chunk(self.blocks, dim=1)
        return self.s * torch.stack([torch.tensordot(part, a, dims=1) for part in parts]).sum(0)

    def split(self, site: Site, f: Factors) -> tuple[Tensor, Tensor]:
        return self.product(site, f).pair

    def product(self, site: Site, f: Factors) -> Product:
        if self.share == "input":
            return Product(f["B"], torch.cat([f["A"]] * self.blocks, dim=1), self.s)
        if self.tied:
            return Product(f["B"], f["A"], self.s * self.blocks)
        return Product(f["B"].unflatten(1, (self.blocks, -1)).sum(1), f["A"], self.s)

    def branch(self, site: Site, f: Factors, x: Tensor) -> Tensor:
        """Sum first, multiply once: the blocks of B, or the chunks of the input."""
        if self.share == "input":
            return site.mix(site.bank(site.fold(x, self.blocks), f["A"]), self.s * f["B"])
        mixer, bank = self.split(site, f)
        return site.mix(site.bank(x, bank), mixer)
