"""What a run asks of a task: its data, its module, its figure of merit, and how its predictions are kept."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import lightning
import numpy as np
from torch import Tensor, nn

from visionpeft.backbones import Backbone, InputSpec
from visionpeft.data.preparation import Preparation
from visionpeft.recipe import Recipe
from visionpeft.runs.kinds.data import opened
from visionpeft.surgery.report import Report
from visionpeft.tasks.base import Task
from visionpeft.tasks.optimize import OptimizerOptions

Found = TypeVar("Found")
"""What testing a model leaves: classification keeps logits, segmentation scores."""


@dataclass(frozen=True)
class Figure:
    """The figure of merit of a task.

    Args:
        key: its name in logs, as ``val/<key>``.
        title: its name in tables.
        percent: whether it is written as a percentage (top-1) or as a plain fraction (Dice).
        lower: whether lower is better, as of a loss.
    """

    key: str
    title: str
    percent: bool
    lower: bool = False

    def text(self, value: float) -> str:
        """The value as people write it."""
        return f"{value:.1%}" if self.percent else f"{value:.3f}"

    def difference(self, value: float) -> str:
        """A difference of two values, with its sign."""
        return f"{100 * value:+.1f}" if self.percent else f"{value:+.3f}"


@dataclass(frozen=True)
class Draw:
    """One repetition of a training: a seed, and the fold that is left out for testing, if there are folds."""

    seed: int
    fold: int | None = None

    @property
    def name(self) -> str:
        """As a folder or file name."""
        return f"seed-{self.seed}" if self.fold is None else f"seed-{self.seed}-fold-{self.fold}"

    @property
    def title(self) -> str:
        """For people, who count folds from one."""
        return f"seed {self.seed}" if self.fold is None else f"seed {self.seed}, fold {self.fold + 1}"


@dataclass(frozen=True)
class Stages:
    """Everything one training needs, built from a recipe, a draw and a learning rate.

    ``plan`` holds a report an adapter once the task's ``configure_model`` has run, and ``notes`` a sentence for each
    thing that was, or was not, loaded, and what was rounded.
    """

    data: Any
    backbone: Backbone
    heads: tuple[str, ...]
    task: Task
    plan: list[Report]
    notes: list[str]


class Kind(ABC, Generic[Found]):
    """One task, seen by the pipeline. All methods are pure but for the files they are told to write."""

    figure: ClassVar[Figure]
    module: ClassVar[type]
    """The data module's class; it takes the card, ``seed``, ``input``, ``image_size`` and the keys of ``data``."""

    def open_data(self, recipe: Recipe, images: InputSpec, draw: Draw) -> Any:
        """The data module, set up; kept for the trials that share it."""
        options = json.dumps({**recipe.data.model_dump(mode="json"), **self.beside(recipe, draw)})
        shared = self.shared(recipe, images)
        return opened(self.module, options, images, recipe.backbone.image_size, draw.seed, **shared)

    def beside(self, recipe: Recipe, draw: Draw) -> dict[str, Any]:
        """What the data module takes beside the keys of ``data``, as plain data."""
        return {}

    def shared(self, recipe: Recipe, images: InputSpec) -> dict[str, Any]:
        """Objects that the data modules of all draws hold together."""
        return {}

    @abstractmethod
    def heads(self, model: nn.Module) -> tuple[str, ...]:
        """Paths of what makes the output, started anew where the number of classes differs."""

    @abstractmethod
    def task(
        self, recipe: Recipe, backbone: Backbone, data: Any, prepare: Any, optimizer: OptimizerOptions, seed: int
    ) -> Task:
        """The Lightning module."""

    def callbacks(self, recipe: Recipe, folder: Path) -> list[lightning.Callback]:
        """What a training does beside training; ``folder`` is the trial's."""
        return []

    def outputs(self, data: Any) -> int | None:
        """Class scores or class maps that the network itself makes; None for a network without a classifier."""
        return len(data.classes)

    def answering(self, stages: Stages, network: nn.Module) -> nn.Module:
        """What takes images and gives class scores, around a network (adapted, merged or loaded again)."""
        return network

    def loaders(self, stages: Stages, part: str) -> Any:
        """What is tested of a part: one loader, or one a test set."""
        return stages.data.ordered(part)

    @abstractmethod
    def batch(self, stages: Stages) -> Tensor:
        """Real images that the network takes as they are."""

    @abstractmethod
    def tested(self, stages: Stages, part: str) -> Found:
        """What the task keeps after ``trainer.test`` on ``part``."""

    @abstractmethod
    def write(self, path: Path, found: Found) -> None: ...

    @abstractmethod
    def read(self, path: Path) -> Found: ...

    @abstractmethod
    def joined(self, folds: Sequence[Found]) -> Found:
        """The folds of a cross-validation as one, cases in the table's order."""

    @abstractmethod
    def scores(self, found: Found) -> np.ndarray:
        """``(cases,)`` figure of merit."""

    @abstractmethod
    def comparable(self, one: Found, other: Found) -> bool:
        """Whether both were tested on the same cases in the same order."""

    @abstractmethod
    def figures(self, found: Sequence[Found]) -> dict[str, float]:
        """Further columns of the table by title, averaged over seeds; NaN where undefined."""

    @abstractmethod
    def write_examples(self, folder: Path, stages: Stages, found: Found) -> None:
        """Pictures for the report, and ``examples.json`` that describes them."""

    def sample(self, stages: Stages) -> Tensor:
        """Images for comparing an export with the model: real ones, or noise where the data is not at hand."""
        return stages.data.noise() if isinstance(stages.data, Preparation) else self.batch(stages)

    def inspect(self, data: Any) -> None:
        """Raise an error that only reading the data shows, before a training is spent on it."""

    def forget(self) -> None:
        """Drop data kept between trainings, so that the next run reads the files again."""
        opened.cache_clear()

    def control(self, name: str, model: nn.Module, data: Any) -> Found:
        """Predictions of a baseline that trains nothing, by the untouched network."""
        raise NotImplementedError(f"{type(self).__name__} has no baseline {name!r}")
