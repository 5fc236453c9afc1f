"""Image classification as the pipeline sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visionpeft.backbones import Backbone, head_of
from visionpeft.data.classification import ClassificationData
from visionpeft.metrics import Predictions
from visionpeft.recipe import Recipe
from visionpeft.runs.kinds.examples import write_examples
from visionpeft.runs.kinds.kind import Figure, Kind, Stages
from visionpeft.runs.weights import read_exactly, write_weights
from visionpeft.tasks.base import Task
from visionpeft.tasks.baselines import nearest_centroid_predictions
from visionpeft.tasks.classify import ClassifyOptions, ClassifyTask
from visionpeft.tasks.optimize import OptimizerOptions


class Classify(Kind[Predictions]):
    """Top-1 of single images."""

    figure = Figure("top1", "top-1", percent=True)
    module = ClassificationData

    def heads(self, model: nn.Module) -> tuple[str, ...]:
        return (head_of(model)[0],)

    def task(
        self, recipe: Recipe, backbone: Backbone, data: Any, prepare: Any, optimizer: OptimizerOptions, seed: int
    ) -> Task:
        section = recipe.task.model_dump(exclude={"name"})
        options = ClassifyOptions(**section, channels_last=recipe.trainer.channels_last)
        (head,) = self.heads(backbone.model)
        return ClassifyTask(
            backbone.model,
            len(data.classes),
            prepare=prepare,
            optimizer=optimizer,
            options=options,
            head=head,
            seed=seed,
        )

    def batch(self, stages: Stages) -> Tensor:
        return next(iter(stages.data.test_dataloader()))[0]

    def tested(self, stages: Stages, part: str) -> Predictions:
        assert isinstance(stages.task, ClassifyTask) and stages.task.predictions is not None, "trainer.test has run"
        return stages.task.predictions

    def write(self, path: Path, found: Predictions) -> None:
        write_weights(path, {"logits": found.logits.float(), "labels": found.labels})

    def read(self, path: Path) -> Predictions:
        state = read_exactly(path, ("logits", "labels"))
        return Predictions(state["logits"], state["labels"].to(torch.int64))

    def joined(self, folds: Sequence[Predictions]) -> Predictions:
        (only,) = folds
        return only

    def scores(self, found: Predictions) -> np.ndarray:
        return found.correct().double().numpy()

    def comparable(self, one: Predictions, other: Predictions) -> bool:
        return torch.equal(one.labels, other.labels)

    def figures(self, found: Sequence[Predictions]) -> dict[str, float]:
        summaries = [predictions.summary(draws=1) for predictions in found]
        titles = {"top5": "top-5", "ece": "ECE"}
        return {titles[key]: fmean(s[key].value for s in summaries) for key in summaries[0] if key in titles}

    def write_examples(self, folder: Path, stages: Stages, found: Predictions) -> None:
        write_examples(folder, stages, found)

    def control(self, name: str, model: nn.Module, data: Any) -> Predictions:
        assert name == "nearest_centroid", "the only one that the recipe's section knows"
        shots, queries = data.ordered("train"), data.test_dataloader()
        (head,) = self.heads(model)
        return nearest_centroid_predictions(model, head, shots, queries, len(data.classes))
