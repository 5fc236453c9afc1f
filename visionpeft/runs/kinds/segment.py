"""Image segmentation as the pipeline sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visionpeft.backbones import Backbone
from visionpeft.data.segmentation.module import SegmentationData
from visionpeft.metrics import Estimate
from visionpeft.metrics.scores import FIGURES, TERTILES, Scores
from visionpeft.recipe import Recipe
from visionpeft.runs.kinds.kind import Draw, Figure, Kind, Stages
from visionpeft.runs.kinds.overlays import write_overlays
from visionpeft.runs.weights import read_tensors, write_weights
from visionpeft.surgery.parts import parts_of
from visionpeft.tasks.base import Task
from visionpeft.tasks.optimize import OptimizerOptions
from visionpeft.tasks.segment import SegmentOptions, SegmentTask

COLUMNS = {"iou": "IoU", "hd95": "HD95", "nsd": "NSD", "volume_error": "volume error"}
"""Columns of the table beside Dice and Dice by the cases' volume."""
BY_VOLUME = "Dice by volume: "
"""What the titles of these begin with; the report writes them as one column."""


@dataclass(frozen=True)
class CaseScores:
    """Scores of some cases of a table: ``cases (n,)`` are their positions, ascending."""

    cases: Tensor
    scores: Scores

    def summary(self) -> Mapping[str, Estimate]:
        """See :meth:`visionpeft.metrics.Scores.summary`."""
        return self.scores.summary()


class Segment(Kind[CaseScores]):
    """Mean Dice of whole cases."""

    figure = Figure("dice", "Dice", percent=False)
    module = SegmentationData

    def beside(self, recipe: Recipe, draw: Draw) -> dict[str, Any]:
        return {"fold": draw.fold}

    def heads(self, model: nn.Module) -> tuple[str, ...]:
        return parts_of(model)["head"]

    def task(
        self, recipe: Recipe, backbone: Backbone, data: Any, prepare: Any, optimizer: OptimizerOptions, seed: int
    ) -> Task:
        section = recipe.task.model_dump(exclude={"name"})
        window = _extents(section.pop("window"), data.axes)
        weights = section.pop("class_weights")
        options = SegmentOptions(
            **section,
            window=window,
            class_weights=tuple(weights) if weights else None,
            channels_last=recipe.trainer.channels_last,
        )
        return SegmentTask(
            backbone.model,
            data.classes,
            prepare=prepare,
            optimizer=optimizer,
            options=options,
            head=self.heads(backbone.model),
            seed=seed,
            spacing=getattr(data, "spacing", None),  # a run's preparation has no cases
        )

    def batch(self, stages: Stages) -> Tensor:
        return next(iter(stages.data.train_dataloader()))[0]

    def tested(self, stages: Stages, part: str) -> CaseScores:
        assert isinstance(stages.task, SegmentTask) and stages.task.scores is not None, "trainer.test has run"
        return CaseScores(torch.tensor(stages.task.tested), stages.task.scores)

    def write(self, path: Path, found: CaseScores) -> None:
        write_weights(path, {"cases": found.cases, **found.scores.to_state()})

    def read(self, path: Path) -> CaseScores:
        state = read_tensors(path)
        return CaseScores(state.pop("cases"), Scores.from_state(state))

    def joined(self, folds: Sequence[CaseScores]) -> CaseScores:
        cases = torch.cat([fold.cases for fold in folds])
        order, scores = cases.argsort(), Scores.joined([fold.scores for fold in folds])
        return CaseScores(cases[order], replace(scores, **{name: getattr(scores, name)[order] for name in FIGURES}))

    def scores(self, found: CaseScores) -> np.ndarray:
        return found.scores.primary().double().numpy()

    def comparable(self, one: CaseScores, other: CaseScores) -> bool:
        return torch.equal(one.cases, other.cases)

    def figures(self, found: Sequence[CaseScores]) -> dict[str, float]:
        pooled = Scores.joined([tested.scores for tested in found])
        summary, by_volume = pooled.summary(draws=1), pooled.by_volume(draws=1)
        named = {COLUMNS[key]: estimate.value for key, estimate in summary.items() if key in COLUMNS}
        return named | {f"{BY_VOLUME}{name}": by_volume[name].value for name in TERTILES if name in by_volume}

    def write_examples(self, folder: Path, stages: Stages, found: CaseScores) -> None:
        write_overlays(folder, stages, found.cases, found.scores)

    def inspect(self, data: SegmentationData) -> None:
        data.inspect()


def _extents(window: int | list[int] | None, axes: int) -> tuple[int, ...] | None:
    if window is None:
        return None
    return (window,) * axes if isinstance(window, int) else tuple(window)
