"""AdapterTune: a zero-initialised bottleneck after each block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from visionpeft.algebra.factor import Factor, xavier, zeros
from visionpeft.algebra.method import BlockMethod, Factors
from visionpeft.methods.registry import register


@register
@dataclass(frozen=True, kw_only=True)
class AdapterTune(BlockMethod):
    """``x = z + s·(up(GELU(down z)))`` after the output z of a block; exact GELU, no norm.

    "AdapterTune: Zero-Initialized Low-Rank Adapters for Frozen Vision Transformers", 2025. ``down.weight: (r, d)``
    xavier, ``up.weight: (d, r)`` and both biases zero, so the start is the pretrained function to the bit.

    Args:
        rank: width r of the bottleneck.
        scale: the multiplier s.
        every: adapt every n-th of the matched blocks.
    """

    rank: int = 16
    scale: float = 1.0

    name: ClassVar[str] = "adaptertune"
    paper: ClassVar[str] = "AdapterTune: Zero-Initialized Low-Rank Adapters for Frozen Vision Transformers, 2025"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("rank")

    def factors(self, width: int) -> dict[str, Factor]:
        return {
            "down.weight": Factor((self.rank, width), xavier(width, self.rank)),
            "down.bias": Factor((self.rank,), zeros),
            "up.weight": Factor((width, self.rank), zeros),
            "up.bias": Factor((width,), zeros),
        }

    def residual(self, f: Factors, h: Tensor) -> Tensor:
        hidden = F.gelu(F.linear(h, f["down.weight"], f["down.bias"]))
        return self.scale * F.linear(hidden, f["up.weight"], f["up.bias"])
