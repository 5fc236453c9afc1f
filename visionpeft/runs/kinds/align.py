"""Aligning the towers of a CLIP, as the pipeline sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn

from visionpeft.backbones import Backbone, InputSpec
from visionpeft.backbones.clip_text import tokenizer_for
from visionpeft.data.captions.held_out import HeldOutData
from visionpeft.data.captions.module import Kept, PairData
from visionpeft.data.prompts import Prompts, prompts_of
from visionpeft.metrics import Predictions, balanced_top1, balanced_weights, nearest_centroid
from visionpeft.recipe import Recipe
from visionpeft.runs.kinds.fewshot import MAIN, FewShot, Tested, templates_of, tokens_of
from visionpeft.runs.kinds.kind import Figure, Stages
from visionpeft.tasks.align import VALIDATION, AlignOptions, AlignTask
from visionpeft.tasks.base import Task
from visionpeft.tasks.captions import Captions
from visionpeft.tasks.clip.unprojected import TowerFeatures
from visionpeft.tasks.optimize import OptimizerOptions


class Align(FewShot):
    """Zero-shot top-1 of held-out classes, every class counting the same."""

    figure = Figure("balanced", "balanced zero-shot top-1", percent=True)
    module = PairData

    def shared(self, recipe: Recipe, images: InputSpec) -> dict[str, Any]:
        return {"kept": _kept(recipe.data.model_dump_json(), images, recipe.backbone.image_size)}

    def task(
        self, recipe: Recipe, backbone: Backbone, data: Any, prepare: Any, optimizer: OptimizerOptions, seed: int
    ) -> Task:
        section: Any = recipe.task
        tokenize = tokenizer_for(recipe.backbone.name, recipe.backbone.options)
        options = AlignOptions(
            dropout=section.dropout,
            temperature=section.temperature,
            learn_temperature=section.learn_temperature,
            channels_last=recipe.trainer.channels_last,
        )
        opened = isinstance(data, PairData)
        return AlignTask(
            backbone.model,
            {name: tokens_of(prompts, tokenize) for name, prompts in _prompts(recipe, data).items()},
            _captions(recipe, data, tokenize) if opened else None,
            prepare=prepare,
            optimizer=optimizer,
            options=options,
            encode_by=data.encode_by if opened and section.cache_features else None,
            seed=seed,
        )

    def loaders(self, stages: Stages, part: str) -> list[Any]:
        if part != "test":
            return [stages.data.ordered(part)]
        return [held.ordered("test") for held in stages.data.tests.values()]

    def scores(self, found: Predictions) -> np.ndarray:
        return (found.correct() * balanced_weights(found.labels)).double().numpy()

    def figures(self, found: Sequence[Predictions]) -> dict[str, float]:
        """The other test sets' balanced top-1."""
        names = found[0].elsewhere if isinstance(found[0], Tested) else {}
        return {f"on {name}": fmean(_balanced(tested.elsewhere[name]) for tested in found) for name in names}  # pyright: ignore

    def write_examples(self, folder: Path, stages: Stages, found: Predictions) -> None:
        super().write_examples(folder, replace(stages, data=stages.data.main), found)

    def control(self, name: str, model: nn.Module, data: Any) -> Tested:
        assert name == "nearest_centroid", "the only one that the recipe's section knows"
        main, *others = (_by_centroid(model, held) for held in data.tests.values())
        return Tested(main.logits, main.labels, dict(zip([*data.tests][1:], others, strict=True)))

    def forget(self) -> None:
        super().forget()
        _kept.cache_clear()


def _balanced(found: Predictions) -> float:
    return balanced_top1(found).item()


def _prompts(recipe: Recipe, data: Any) -> dict[str, Prompts]:
    """Set of classes → its prompts; without data (a run's preparation) those of the main test set alone."""
    if not isinstance(data, PairData):
        return {MAIN: prompts_of(data.card, data.classes, templates_of(recipe), known=None)}
    main, *others = data.tests
    return {
        VALIDATION: data.validation.prompts,
        MAIN: data.tests[main].prompts,
        **{name: data.tests[name].prompts for name in others},
    }


def _captions(recipe: Recipe, data: PairData, tokenize: Any) -> Captions:
    """The pairs' captions; tokens are made once a backbone, so that a warning of long captions comes once."""
    name = recipe.backbone.model_dump_json(include={"name", "options"})
    if name not in data.kept.tokens:
        data.kept.tokens[name] = tokenize([text for own in data.texts for text in own])
    return Captions.of(data.texts, data.kept.tokens[name], data.kept.texts)


def _by_centroid(model: nn.Module, held: HeldOutData) -> Predictions:
    """Each test image takes the class of the nearest mean of a few images, by the image tower's own features."""
    tower = TowerFeatures(model.eval())
    held.encode_by("", None)
    parts = [[(tower.encode(images), labels) for images, labels in held.ordered(part)] for part in ("train", "test")]
    (shots, known), (queries, labels) = (map(torch.cat, zip(*part, strict=True)) for part in parts)
    return Predictions(nearest_centroid(shots, known, queries, len(held.classes)), labels)


@lru_cache(maxsize=2)
def _kept(section: str, images: InputSpec, image_size: int | None) -> Kept:
    """Where the encoded images and texts of these data are kept, whatever the seed."""
    return Kept()
