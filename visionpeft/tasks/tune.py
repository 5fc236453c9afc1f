"""Choose one setting from a grid on the validation split, each method for itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from visionpeft.errors import OptionError, StateError


@dataclass(frozen=True)
class Tuned:
    """The chosen value and every score that was seen; a run that diverged scored minus infinity."""

    value: float
    scores: dict[float, float]

    @property
    def at_edge(self) -> bool:
        """The best value is the smallest or largest tried, so a wider grid might do better."""
        return len(self.scores) > 1 and self.value in (min(self.scores), max(self.scores))


def tune(grid: Iterable[float], validate: Callable[[float], float]) -> Tuned:
    """Call ``validate(value)`` (train with it, return the validation score) for each value and keep the best.

    Ties go to the smaller value. A run that stops with :class:`StateError` (NaN loss) counts as minus infinity.

    Raises:
        OptionError: the grid is empty.
        StateError: every value diverged.
    """
    values = sorted(set(grid))
    if not values:
        raise OptionError("tune needs at least one value to try, found an empty grid")
    scores = {value: _score(validate, value) for value in values}
    best = max(values, key=lambda value: scores[value])
    if scores[best] == -math.inf:
        raise StateError(f"training diverged for every value tried: {values}. Try smaller ones")
    return Tuned(best, scores)


def _score(validate: Callable[[float], float], value: float) -> float:
    try:
        score = validate(value)
    except StateError:
        return -math.inf
    return -math.inf if math.isnan(score) else score
