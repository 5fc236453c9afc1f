"""Bootstrap intervals: how far a figure would move if the test images had been drawn again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from visionpeft.errors import OptionError

_CELLS = 4_000_000  # weights held at once: 32 MB


def bootstrap_interval(
    correct: ArrayLike, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of ``correct``.

    Args:
        correct: ``(images,)`` zeros and ones (or any per-image score), or ``(runs, images)`` for several seeds tested
            on the same images in the same order. Then runs *and* images are drawn again, so the interval covers both.
        level: share of the draws inside the interval.
        draws: number of resamples.
        seed: seed of the resampling; equal arguments give equal intervals.

    Returns:
        ``(low, high)``. For a difference of two models pass ``correct_a - correct_b``: the pairing is kept.

    Raises:
        OptionError: no images, more than two axes, a level outside (0, 1), or no draws.
    """
    scores = _as_runs(correct)
    rng = np.random.default_rng(seed)
    means = [
        ((_weights(rng, len(chunk), scores.shape[0]) @ scores) * chunk).sum(1)
        for chunk in _image_weights(rng, scores.shape[1], _checked_draws(draws))
    ]
    return _percentiles(np.concatenate(means), level)


def calibration_interval(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 15, level: float = 0.95, draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the expected calibration error over equal-width bins ``(low, high]``.

    ``confidence`` and ``correct`` have shape ``(images,)``. Resampling can only add noise inside a bin, so for a well
    calibrated model the whole interval may lie above the point estimate; it is reported as it is.
    """
    confidence, correct = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if confidence.shape != correct.shape:
        raise OptionError(f"confidence {confidence.shape} and correct {correct.shape} need equal shapes")
    gap = _as_runs(correct - confidence)[0]
    member = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap_by_bin = np.zeros((len(gap), bins))
    gap_by_bin[np.arange(len(gap)), member] = gap
    rng = np.random.default_rng(seed)
    errors = [np.abs(w @ gap_by_bin).sum(1) for w in _image_weights(rng, len(gap), _checked_draws(draws))]
    return _percentiles(np.concatenate(errors), level)


def _as_runs(values: ArrayLike) -> NDArray[np.float64]:
    scores = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if scores.ndim != 2 or scores.size == 0:
        raise OptionError(f"an interval needs scores of shape (images,) or (runs, images), found {np.shape(values)}")
    return scores


def _checked_draws(draws: int) -> int:
    if draws < 1:
        raise OptionError(f"draws must be at least 1, found {draws}")
    return draws


def _weights(rng: np.random.Generator, draws: int, items: int) -> NDArray[np.float64]:
    """``(draws, items)``: how often each item came up when drawing ``items`` times with replacement, as a share."""
    return rng.multinomial(items, np.full(items, 1 / items), size=draws) / items


def _image_weights(rng: np.random.Generator, images: int, draws: int) -> Iterator[NDArray[np.float64]]:
    step = max(1, _CELLS // images)
    for start in range(0, draws, step):
        yield _weights(rng, min(step, draws - start), images)


def _percentiles(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    if not 0 < level < 1:
        raise OptionError(f"level must lie between 0 and 1, found {level}")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
