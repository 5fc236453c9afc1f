"""The cases of an entry over its seeds, and what is said of them by volume and by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from visionpeft.metrics import Estimate, bootstrap_interval
from visionpeft.metrics.scores import FIGURES, TERTILES, Scores, volume_tertiles
from visionpeft.report.content import Content


@dataclass(frozen=True)
class CaseTable:
    """Figures of an entry's test cases.

    Attributes:
        figures: name → ``(seeds, cases, classes)`` for each of :data:`visionpeft.metrics.scores.FIGURES`.
        tertile: ``(cases,)`` 0, 1, 2 by volume, −1 where there is no foreground; as the result table divides them.
        classes: foreground classes.
        unit: of volumes.
    """

    figures: dict[str, np.ndarray]
    tertile: np.ndarray
    classes: tuple[str, ...]
    unit: str

    @classmethod
    def of(cls, content: Content, label: str) -> CaseTable:
        """Read what testing left of an entry."""
        found = [tested.scores for tested in content.tested(label)]
        figures = {name: np.stack([getattr(scores, name).numpy() for scores in found]) for name in FIGURES}
        tertile = volume_tertiles(Scores.joined(found).total_volume())[: len(found[0])]
        return cls(figures, tertile.numpy(), found[0].classes, found[0].unit)

    @property
    def dice(self) -> np.ndarray:
        """``(seeds, cases)`` mean over classes."""
        return self.figures["dice"].mean(2)

    @property
    def volume(self) -> np.ndarray:
        """``(cases,)`` true foreground volume."""
        return self.figures["volume"][0].sum(1)

    def by_tertile(self) -> dict[str, Estimate]:
        """Mean Dice of the small, the medium and the large cases, as far as there are any; over cases and seeds."""
        members = {name: self.tertile == place for place, name in enumerate(TERTILES)} | {"empty": self.tertile < 0}
        return {name: estimate(self.dice[:, mask]) for name, mask in members.items() if mask.any()}

    def of_class(self, place: int) -> dict[str, Estimate]:
        """Every figure of one class; the volume error without its sign."""
        columns = {name: values[:, :, place] for name, values in self.figures.items() if name != "volume"}
        return {name: estimate(np.abs(values)) for name, values in columns.items()}


def estimate(values: np.ndarray) -> Estimate:
    """Mean of ``(seeds, cases)`` with its interval over both; cases that no seed defines are left out.

    A value that only some seeds define counts, for the interval, as the mean of the others.
    """
    defined = ~np.isnan(values)
    values, defined = values[:, defined.any(0)], defined[:, defined.any(0)]
    if not values.size:
        return Estimate(*[float("nan")] * 3)
    filled = torch.from_numpy(values).nanmean(0).numpy()
    interval = bootstrap_interval(np.where(defined, values, filled))
    return Estimate(float(values[defined].mean()), *interval)
