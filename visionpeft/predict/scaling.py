"""Normalisation of a case piece by piece: what training does to whole cases, with the statistics taken first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from visionpeft.data.segmentation.cards import Intensity
from visionpeft.data.segmentation.intensity import PERCENTILES, normalise
from visionpeft.predict.scans import Scan


@dataclass(frozen=True)
class Scaling:
    """:func:`visionpeft.data.segmentation.intensity.normalise` of a whole case, applied to any piece of it.

    ``low`` and ``high`` are, by the rule: the percentiles of ``unit``, mean and mean + deviation of ``zscore``.
    """

    rule: Intensity
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, scan: Scan, rule: Intensity) -> Scaling:
        """Take the statistics of a scan, one plane of the first axis at a time where they are sums."""
        if rule.kind == "zscore":
            return cls(rule, *_moments(scan))
        if rule.kind == "unit":
            # In the file's own type: the only copy of the whole that is made, and it is freed again.
            low, high = np.percentile(scan.raw, PERCENTILES) * scan.slope + scan.offset
            return cls(rule, float(min(low, high)), float(max(low, high)))
        return cls(rule)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Float32 of the same shape."""
        if self.rule.kind in ("picture", "ct"):
            return normalise(values, self.rule)
        values = values.astype(np.float32)
        if self.rule.kind == "zscore":
            return np.where(values != 0, (values - self.low) / (self.high - self.low), 0).astype(np.float32)
        return np.clip((values - self.low) / max(self.high - self.low, 1e-6), 0, 1).astype(np.float32)


def _moments(scan: Scan) -> tuple[float, float]:
    """Mean, and mean + standard deviation, of the values that are not 0; (0, 1) without any."""
    count, total, squares = 0, 0.0, 0.0
    for place in range(scan.shape[0]):
        known = scan.values(place).astype(np.float64)
        known = known[known != 0]
        count, total = count + known.size, total + float(known.sum())
    if not count:
        return 0.0, 1.0
    mean = total / count
    for place in range(scan.shape[0]):  # a second pass: the difference of two large sums would lose digits
        known = scan.values(place).astype(np.float64)
        squares += float(((known[known != 0] - mean) ** 2).sum())
    return mean, mean + ((squares / count) ** 0.5 or 1.0)
