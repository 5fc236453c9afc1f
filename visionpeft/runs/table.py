"""From trials and what testing them left to the rows of the result table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from visionpeft.metrics import bootstrap_interval
from visionpeft.recipe import Entry
from visionpeft.runs.kinds import Kind
from visionpeft.runs.result import Row, Trial

TITLES = {"nearest_centroid": "nearest centroid"}
"""Baselines that train nothing, as the table calls them."""
UNDEFINED = {"nearest_centroid": ("ECE",)}
"""Columns they leave empty: cosines are no logits, so they have no calibration error."""


def entry_row(kind: Kind, entry: Entry, trials: list[Trial], found: Sequence[Any]) -> Row:
    """Pool the seeds of an entry: means, and for the figure of merit an interval over cases and seeds.

    Args:
        found: what testing left, one a seed.
    """
    role = "main" if entry.main else "compare"
    return replace(
        _row(kind, entry.label, role, found, list(dict.fromkeys(trial.seed for trial in trials))),
        val=fmean(trial.val[kind.figure.key] for trial in trials),
        lr=trials[0].lr if entry.recipe.trains else None,
        trainable=trials[0].trainable,
        adapter=trials[0].adapter,
        total=trials[0].total,
        seconds=fmean(trial.seconds for trial in trials),
        peak_memory=max(trial.peak_memory for trial in trials),
        swept=entry.swept,
    )


def baseline_row(kind: Kind, name: str, found: Sequence[Any], seeds: list[int]) -> Row:
    """The row of a baseline that trains nothing."""
    row = _row(kind, TITLES[name], "baseline", found, seeds)
    return replace(row, figures={title: v for title, v in row.figures.items() if title not in UNDEFINED[name]})


def with_gains(kind: Kind, rows: list[Row], found: dict[str, Sequence[Any]], main: str) -> list[Row]:
    """Add to every other row how far the main entry is ahead, towards the better, case by case and seed by seed."""
    named = {TITLES.get(name, name): tested for name, tested in found.items()}
    return [row if row.label == main else _with_gain(kind, row, named[main], named[row.label]) for row in rows]


def _with_gain(kind: Kind, row: Row, main: Sequence[Any], other: Sequence[Any]) -> Row:
    if len(main) != len(other) or not all(kind.comparable(a, b) for a, b in zip(main, other, strict=True)):
        return row  # tested on other cases: nothing to pair
    difference = (_scores(kind, main) - _scores(kind, other)) * (-1 if kind.figure.lower else 1)
    return replace(row, gain=float(difference.mean()), gain_interval=bootstrap_interval(difference))


def _row(kind: Kind, label: str, role: str, found: Sequence[Any], seeds: list[int]) -> Row:
    scores = _scores(kind, found)
    return Row(
        label=label,
        kind=role,
        value=float(scores.mean()),
        interval=bootstrap_interval(scores),
        by_seed=dict(zip(seeds, scores.mean(1).tolist(), strict=True)),
        figures=kind.figures(found),
    )


def _scores(kind: Kind, found: Sequence[Any]) -> np.ndarray:
    """``(seeds, cases)``."""
    return np.stack([kind.scores(tested) for tested in found])
