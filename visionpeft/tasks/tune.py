"""Choose one setting from a grid on the validation split, each method for itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from visionpeft.errors import OptionError, StateError


@dataclass(frozen=True)
class Tuned:
    """The chosen value and every score that was seen; a run that diverged scored the worst, an infinity."""

    value: float
    scores: dict[float, float]

    @property
    def at_edge(self) -> bool:
        """The best value is the smallest or largest tried, so a wider grid might do better."""
        return len(self.scores) > 1 and self.value in (min(self.scores), max(self.scores))


def tune(grid: Iterable[float], validate: Callable[[float], float], *, lower: bool = False) -> Tuned:
    """Call ``validate(value)`` (train with it, return the validation score) for each value and keep the best.

    The best is the highest, or with ``lower`` the lowest. Ties go to the smaller value. A run that stops with
    :class:`StateError` (NaN loss) counts as the worst.

    Raises:
        OptionError: the grid is empty.
        StateError: every value diverged.
    """
    values = sorted(set(grid))
    if not values:
        raise OptionError("tune needs at least one value to try, found an empty grid")
    worst = math.inf if lower else -math.inf
    scores = {value: _score(validate, value, worst) for value in values}
    best = (min if lower else max)(values, key=lambda value: scores[value])
    if scores[best] == worst:
        raise StateError(f"training diverged for every value tried: {values}. Try smaller ones")
    return Tuned(best, scores)


def _score(validate: Callable[[float], float], value: float, worst: float) -> float:
    try:
        score = validate(value)
    except StateError:
        return worst
    return worst if math.isnan(score) else score
