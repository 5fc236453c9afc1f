"""LoRA on every layer type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from visionpeft.algebra.factor import Factor, kaiming, zeros
from visionpeft.algebra.method import Factors, LowRank, Product
from visionpeft.algebra.site import Site
from visionpeft.methods.registry import register


@register
@dataclass(frozen=True, kw_only=True)
class LoRA(LowRank):
    """``ΔW = s·B·A`` with ``A: (r, in/groups, *k)`` as a filter bank and ``B: (out, r)``.

    "LoRA: Low-Rank Adaptation of Large Language Models", 2021. On a convolution this is a k×k convolution to r
    channels and a 1×1 mix to the outputs, the layout of HF PEFT and LoCon; with groups, all groups share the bank.
    Differs from the released code in keeping the host's padding mode, dilation and groups.
    """

    name: ClassVar[str] = "lora"
    paper: ClassVar[str] = "LoRA: Low-Rank Adaptation of Large Language Models, 2021"

    def factors(self, site: Site) -> dict[str, Factor]:
        return {
            "A": Factor((self.rank, *site.shape[1:]), kaiming(site.fan_in)),
            "B": Factor((site.out, self.rank), zeros),
        }

    def delta(self, site: Site, f: Factors) -> Tensor:
        return self.s * torch.tensordot(f["B"], f["A"], dims=1)

    def split(self, site: Site, f: Factors) -> tuple[Tensor, Tensor]:
        return self.product(site, f).pair

    def product(self, site: Site, f: Factors) -> Product:
        return Product(f["B"], f["A"], self.s)


@register
@dataclass(frozen=True, kw_only=True)
class ConvLoRA(LoRA):
    """LoRA under the name the convolution papers use; the same factors and formula as ``lora``."""

    name: ClassVar[str] = "conv_lora"
