"""The stages before training, each from a slice of the recipe to a value: data, backbone, adapted model, task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from visionpeft.backbones import Backbone, InputSpec, load
from visionpeft.errors import OptionError
from visionpeft.recipe import Recipe, build_method
from visionpeft.runs.kinds import Draw, Stages, kind_of
from visionpeft.surgery.adapt import adapt
from visionpeft.surgery.audit import audit
from visionpeft.surgery.parts import parts_of
from visionpeft.surgery.quantize import quantize
from visionpeft.surgery.report import Report
from visionpeft.surgery.trainable import train_only
from visionpeft.tasks.frozen import moving_state
from visionpeft.tasks.optimize import OptimizerOptions


def build(recipe: Recipe, draw: Draw, lr: float | None = None, data: Any = None) -> Stages:
    """Open the data, load the backbone and wrap both in the task; the model is adapted when training starts.

    Args:
        recipe, draw, lr: what is to be built.
        data: instead of the recipe's data, an open data module or how its images are prepared.

    Raises:
        UserError: whatever the stages refuse (names, files, values).
    """
    kind, data = kind_of(recipe), data or open_data(recipe, draw)
    with seeded(draw.seed):
        backbone = open_backbone(recipe, kind.outputs(data))
    heads, plan, notes = kind.heads(backbone.model), [], [*backbone.notes]
    prepare = _preparation(backbone, recipe, heads, draw.seed, plan, notes)
    task = kind.task(recipe, backbone, data, prepare, _optimizer(recipe, lr), draw.seed)
    return Stages(data, backbone, heads, task, plan, notes)


def open_data(recipe: Recipe, draw: Draw) -> Any:
    """The data module of a recipe, opened; kept for the trials that share it."""
    return kind_of(recipe).open_data(recipe, input_of(recipe), draw)


def open_backbone(recipe: Recipe, classes: int | None, *, pretrained: bool = True) -> Backbone:
    """The plain network of a recipe; ``pretrained=False`` gives its architecture with random weights."""
    section = recipe.backbone
    return load(
        section.name,
        pretrained=section.pretrained if pretrained else False,
        num_classes=classes,
        image_size=section.image_size,
        **_constructor_options(recipe),
    )


def _preparation(
    backbone: Backbone, recipe: Recipe, heads: tuple[str, ...], seed: int, plan: list[Report], notes: list[str]
) -> Callable[[nn.Module], None]:
    """What the task does to the network before training.

    The adapters' reports go into ``plan``, what was rounded into ``notes``.
    """

    def prepare(model: nn.Module) -> None:
        beside = _trained_beside(recipe, model, heads)
        if recipe.backbone.quantize and recipe.method.name != "full":  # what trains is never rounded
            notes.append(str(quantize(model, recipe.backbone.quantize, keep=[*heads, *beside])))
        if recipe.method.adapts:
            plan.extend(_adapted(backbone, recipe, beside, seed))
        else:
            _train_only(model, recipe, heads, beside)

    return prepare


def _trained_beside(recipe: Recipe, model: nn.Module, heads: tuple[str, ...]) -> list[str]:
    """``train_also`` as module paths and patterns: the parts of the network (encoder, decoder, head) resolved."""
    named = {"head": heads}
    if {"encoder", "decoder"} & set(recipe.train_also):
        named = {**parts_of(model), **named}
    for name in recipe.train_also:
        if not named.get(name, (name,)):
            raise OptionError(f"train_also: {name!r}: this {type(model).__name__} has no {name} beside its other parts")
    found = [path for name in recipe.train_also for path in named.get(name, (name,))]
    return [*found, *(["norm"] if recipe.norm.train else [])]


def _adapted(backbone: Backbone, recipe: Recipe, beside: list[str], seed: int) -> list[Report]:
    """Mount every adapter of the recipe; one report each."""
    audited = audit(backbone.model, backbone.example_input())
    generator = torch.Generator().manual_seed(seed)
    return [
        adapt(
            backbone.model,
            build_method(method),
            targets=targets,
            name=name,
            example=audited,
            train_also=beside,
            generator=generator,
        )
        for name, (method, targets) in recipe.adapters.items()
    ]


def _train_only(model: nn.Module, recipe: Recipe, heads: tuple[str, ...], beside: list[str]) -> None:
    """Choose what trains where nothing is adapted."""
    train_only(model, {"full": [""], "head_only": heads, "frozen": beside}[recipe.method.name])


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
