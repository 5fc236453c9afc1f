"""The stages before training, each from a slice of the recipe to a value: data, backbone, adapted model, task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from visionpeft.backbones import Backbone, InputSpec, head_of, load
from visionpeft.data.classification import ClassificationData
from visionpeft.errors import OptionError
from visionpeft.recipe import Recipe, build_method
from visionpeft.recipe.sections import Data
from visionpeft.surgery.adapt import adapt
from visionpeft.surgery.report import Report
from visionpeft.tasks.baselines import train_only
from visionpeft.tasks.classify import ClassifyOptions, ClassifyTask
from visionpeft.tasks.frozen import moving_state
from visionpeft.tasks.optimize import OptimizerOptions


class Preparation:
    """Freezes and adapts a backbone in place when the task asks for it, and keeps the adapter's report."""

    def __init__(self, backbone: Backbone, recipe: Recipe, seed: int) -> None:
        self.backbone, self.recipe, self.seed = backbone, recipe, seed
        self.report: Report | None = None

    def __call__(self, model: nn.Module) -> None:
        self.report = adapt_model(self.backbone, self.recipe, self.seed)


@dataclass(frozen=True)
class Stages:
    """Everything one training needs, built from a recipe, a seed and a learning rate."""

    data: ClassificationData
    backbone: Backbone
    head: str
    task: ClassifyTask
    preparation: Preparation


def build(recipe: Recipe, seed: int, lr: float | None = None) -> Stages:
    """Open the data, load the backbone and wrap both in the task; the model is adapted when training starts.

    Raises:
        UserError: whatever the stages refuse (names, files, values).
    """
    data = open_data(recipe, seed)
    with seeded(seed):
        backbone = open_backbone(recipe, len(data.classes))
    head, preparation = head_of(backbone.model)[0], Preparation(backbone, recipe, seed)
    task = ClassifyTask(
        backbone.model,
        len(data.classes),
        prepare=preparation,
        optimizer=_optimizer(recipe, lr),
        options=ClassifyOptions(**recipe.task.model_dump(exclude={"name"}), channels_last=recipe.trainer.channels_last),
        head=head,
        seed=seed,
    )
    return Stages(data, backbone, head, task, preparation)


def open_data(recipe: Recipe, seed: int) -> ClassificationData:
    """The data module of a recipe, opened, with the few-shot draw of ``seed``; kept for the trials that share it."""
    section: Any = recipe.data  # frozen, hence hashable
    return opened(section, input_of(recipe), recipe.backbone.image_size, seed)


@lru_cache(maxsize=4)
def opened(section: Data, images: InputSpec, image_size: int | None, seed: int) -> ClassificationData:
    """See :func:`open_data`; ``opened.cache_clear()`` makes the next call read the files again."""
    options = section.model_dump(exclude={"card"})
    data = ClassificationData(section.card, seed=seed, input=images, image_size=image_size, **options)
    data.setup()
    return data


def open_backbone(recipe: Recipe, classes: int, *, pretrained: bool = True) -> Backbone:
    """The plain network of a recipe; ``pretrained=False`` gives its architecture with random weights."""
    section = recipe.backbone
    return load(
        section.name,
        pretrained=section.pretrained if pretrained else False,
        num_classes=classes,
        image_size=section.image_size,
        **_constructor_options(recipe),
    )


def adapt_model(backbone: Backbone, recipe: Recipe, seed: int) -> Report | None:
    """Mount the recipe's method, or choose what is trained where there is none.

    Returns:
        The report of ``visionpeft.adapt``, or None for ``head_only`` and ``full``.
    """
    if not recipe.method.adapts:
        train_only(backbone.model, [""] if recipe.method.name == "full" else [head_of(backbone.model)[0]])
        return None
    return adapt(
        backbone.model,
        build_method(recipe.method),
        targets=recipe.targets,
        example=backbone.example_input(),
        train_also=[*recipe.train_also, *(["norm"] if recipe.norm.train else [])],
        generator=torch.Generator().manual_seed(seed),
    )


def trained_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """What training changed beside the adapter: head, norms, or every weight under full fine-tuning."""
    return {name: value for name, value in moving_state(model).items() if ".adapters." not in f".{name}"}


def input_of(recipe: Recipe) -> InputSpec:
    """What images the backbone of a recipe expects, without loading its weights."""
    section = recipe.backbone
    options = {"image_size": section.image_size, **_constructor_options(recipe)}
    return load(section.name, pretrained=False, device="meta", **options).input


def _constructor_options(recipe: Recipe) -> dict[str, Any]:
    """``backbone.options``, refused where a key of the section itself is meant."""
    options: dict[str, Any] = dict(recipe.backbone.options)
    for key in ("pretrained", "num_classes", "image_size", "device"):
        if key in options:
            raise OptionError(f"backbone.options.{key}: set it as backbone.{key}; the classes come from the data")
    return options


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which torch's generator starts from ``seed``; it is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _optimizer(recipe: Recipe, lr: float | None) -> OptimizerOptions:
    section = recipe.trainer
    return OptimizerOptions(
        lr=section.lr if lr is None else lr,
        head_lr=section.head_lr,
        weight_decay=section.weight_decay,
        schedule=section.schedule,
        warmup_steps=section.warmup_steps,
    )
