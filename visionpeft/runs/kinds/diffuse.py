"""Training a diffusion pipeline's denoiser, as the run pipeline sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn

from visionpeft.backbones import Backbone
from visionpeft.data.pictures.module import PictureData
from visionpeft.errors import UserError
from visionpeft.files import atomic_write
from visionpeft.recipe import Recipe
from visionpeft.runs.kinds.kind import Figure, Kind, Stages
from visionpeft.runs.kinds.previews import Previews
from visionpeft.runs.kinds.samples import measures_of
from visionpeft.runs.weights import read_tensors, write_weights
from visionpeft.tasks.base import Task
from visionpeft.tasks.diffuse import DiffuseOptions, DiffuseTask, FixedNoise
from visionpeft.tasks.diffusion.prior import Prior
from visionpeft.tasks.optimize import OptimizerOptions

TARGETS = "examples/targets.safetensors"
"""The real pictures beside which a report shows what was drawn."""
_TENSORS = ("positions", "losses", "sampled_positions", "sampled")


@dataclass(frozen=True)
class Drawn:
    """What testing a denoiser leaves.

    Attributes:
        positions, losses: ``(n,)`` of the test pictures in the data's table, and their denoising losses.
        sampled_positions, sampled: ``(m,)`` whose captions were drawn, and the pictures, uint8 ``(m, 3, S, S)``.
        measures: what the pictures score, by column title.
    """

    positions: Tensor
    losses: Tensor
    sampled_positions: Tensor
    sampled: Tensor
    measures: Mapping[str, float] = field(default_factory=dict)


class Diffuse(Kind[Drawn]):
    """The denoising loss on test pictures; pictures drawn with their captions are judged beside it."""

    figure = Figure("loss", "denoising loss", percent=False, lower=True)
    module = PictureData

    def heads(self, model: nn.Module) -> tuple[str, ...]:
        return ()

    def outputs(self, data: Any) -> None:
        return None

    def task(
        self, recipe: Recipe, backbone: Backbone, data: Any, prepare: Any, optimizer: OptimizerOptions, seed: int
    ) -> Task:
        section: Any = recipe.task
        own = section.model_dump(exclude={"name", "samples", "prior"})
        drawing = section.samples.model_dump(exclude={"preview", "count"})
        prior = Prior(**section.prior.model_dump(), **drawing) if section.prior else None
        options = DiffuseOptions(**own, **drawing, prior=prior, samples=section.samples.count)
        return DiffuseTask(
            backbone.pipeline,
            getattr(data, "captions", ()),  # a run's preparation has no pictures
            size=recipe.backbone.image_size or backbone.input.size,
            prepare=prepare,
            optimizer=optimizer,
            options=options,
            seed=seed,
        )

    def callbacks(self, recipe: Recipe, folder: Path) -> list[lightning.Callback]:
        task: Any = recipe.task
        return [Previews(folder / "previews", task.samples.preview)] if task.samples.preview else []

    def answering(self, stages: Stages, network: nn.Module) -> nn.Module:
        assert isinstance(stages.task, DiffuseTask), "its own task"
        return FixedNoise(stages.task, network)

    def batch(self, stages: Stages) -> Tensor:
        return next(iter(stages.data.ordered("test")))[0][:4]

    def tested(self, stages: Stages, part: str) -> Drawn:
        task = stages.task
        assert isinstance(task, DiffuseTask), "its own task"
        found = {name: getattr(task, name) for name in _TENSORS}
        return Drawn(**found, measures=measures_of(stages.data, task.sampled, task.sampled_positions))

    def write(self, path: Path, found: Drawn) -> None:
        measures = {f"measures/{title}": torch.tensor(value) for title, value in found.measures.items()}
        write_weights(path, {name: getattr(found, name) for name in _TENSORS} | measures)

    def read(self, path: Path) -> Drawn:
        state = read_tensors(path)
        measures = {name.partition("/")[2]: state.pop(name).item() for name in [*state] if name.startswith("measures/")}
        if set(state) != set(_TENSORS):
            raise UserError(f"{path} holds {', '.join(state)}, not losses and samples")
        return Drawn(**state, measures=measures)

    def joined(self, folds: Sequence[Drawn]) -> Drawn:
        (only,) = folds  # pictures have no folds
        return only

    def scores(self, found: Drawn) -> np.ndarray:
        return found.losses.double().numpy()

    def comparable(self, one: Drawn, other: Drawn) -> bool:
        return torch.equal(one.positions, other.positions)

    def figures(self, found: Sequence[Drawn]) -> dict[str, float]:
        """What the drawn pictures score, averaged over seeds."""
        return {title: fmean(drawn.measures[title] for drawn in found) for title in found[0].measures}

    def write_examples(self, folder: Path, stages: Stages, found: Drawn) -> None:
        """The real pictures of the drawn captions, and the captions."""
        positions = found.sampled_positions.tolist()
        pictures = stages.data.table.images[positions]
        write_weights(folder / TARGETS, {"pictures": torch.from_numpy(np.ascontiguousarray(pictures))})
        captions = [stages.data.captions[n] for n in positions]
        atomic_write(folder / "examples.json", json.dumps({"captions": captions, "classes": []}))
