"""From trials and predictions to the rows of the result table."""

from __future__ import annotations

from dataclasses import replace
from statistics import fmean

import numpy as np
import torch

from visionpeft.metrics import Predictions, bootstrap_interval
from visionpeft.recipe import Entry
from visionpeft.runs.baselines import TITLES
from visionpeft.runs.result import Row, Trial


def entry_row(entry: Entry, trials: list[Trial], predictions: list[Predictions], kind: str) -> Row:
    """Pool the seeds of an entry: means, and for top-1 an interval over images and seeds."""
    return replace(
        _row(entry.label, kind, predictions, [trial.seed for trial in trials]),
        val_top1=fmean(trial.val["top1"] for trial in trials),
        lr=trials[0].lr,
        trainable=trials[0].trainable,
        adapter=trials[0].adapter,
        total=trials[0].total,
        seconds=fmean(trial.seconds for trial in trials),
        peak_memory=max(trial.peak_memory for trial in trials),
        swept=entry.swept,
    )


def baseline_row(name: str, predictions: list[Predictions], seeds: list[int]) -> Row:
    """The row of a baseline that trains nothing; its scores are no logits, so it has no calibration error."""
    return replace(_row(TITLES[name], "baseline", predictions, seeds), ece=None)


def with_gains(rows: list[Row], predictions: dict[str, list[Predictions]], main: str) -> list[Row]:
    """Add to every other row how far the main entry is ahead, image by image and seed by seed."""
    named = {TITLES.get(name, name): found for name, found in predictions.items()}
    return [row if row.label == main else _with_gain(row, named[main], named[row.label]) for row in rows]


def _with_gain(row: Row, main: list[Predictions], other: list[Predictions]) -> Row:
    if len(main) != len(other) or any(not torch.equal(a.labels, b.labels) for a, b in zip(main, other, strict=True)):
        return row  # tested on other images: nothing to pair
    difference = _correct(main) - _correct(other)
    return replace(row, gain=float(difference.mean()), gain_interval=bootstrap_interval(difference))


def _row(label: str, kind: str, predictions: list[Predictions], seeds: list[int]) -> Row:
    correct = _correct(predictions)
    summaries = [found.summary(draws=1) for found in predictions]
    return Row(
        label=label,
        kind=kind,
        top1=float(correct.mean()),
        interval=bootstrap_interval(correct),
        by_seed=dict(zip(seeds, correct.mean(1).tolist(), strict=True)),
        top5=fmean(s["top5"].value for s in summaries) if "top5" in summaries[0] else None,
        ece=fmean(s["ece"].value for s in summaries),
    )


def _correct(predictions: list[Predictions]) -> np.ndarray:
    """``(seeds, images)`` of zeros and ones."""
    return np.stack([found.correct().double().numpy() for found in predictions])
