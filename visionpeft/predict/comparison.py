"""The same prompts and seeds drawn by the base and with adapters, for looking at them side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor

from visionpeft.predict.sampler import Sampler, Step


@dataclass(frozen=True)
class Wish:
    """What shall be drawn: ``count`` pictures with seeds from ``seed`` on."""

    prompt: str
    seed: int = 0
    count: int = 1
    steps: int | None = None
    guidance: float | None = None
    negative: str | None = None


class Comparison:
    """Draws a wish twice. What the base drew last is kept, so that another strength costs only its own pictures."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler
        self._of_base = lru_cache(maxsize=8)(self._drawn_by_base)

    def draw(self, wish: Wish, strengths: Mapping[str, float], progress: Step | None = None) -> tuple[Tensor, Tensor]:
        """Pictures of the base and with adapters of these strengths, uint8 ``(count, 3, H, W)`` each.

        Raises:
            UserError: as :meth:`visionpeft.predict.sampler.Sampler.use` and its ``prompts`` and ``draw``.
        """
        self.sampler.use(strengths)
        self._progress = progress
        return self._of_base(wish), self._drawn(wish)

    def _drawn_by_base(self, wish: Wish) -> Tensor:
        with self.sampler.base():
            return self._drawn(wish)

    def _drawn(self, wish: Wish) -> Tensor:
        options: dict[str, Any] = {"steps": wish.steps, "guidance": wish.guidance, "negative": wish.negative or None}
        (prompt,) = self.sampler.prompts([wish.prompt])
        seeds = [wish.seed + number for number in range(wish.count)]
        return self.sampler.draw([prompt] * wish.count, seeds, progress=self._progress, **options)
