"""What a run must know of its task: one file a task, imported when a recipe asks for it."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from visionpeft.recipe import Recipe
from visionpeft.runs.kinds.kind import Draw, Figure, Found, Kind, Stages

__all__ = ["Draw", "Figure", "Found", "Kind", "Stages", "kind_of"]

KINDS = {
    "align": "Align",
    "autoencode": "Autoencode",
    "classify": "Classify",
    "diffuse": "Diffuse",
    "fewshot": "FewShot",
    "segment": "Segment",
}
"""Task, which is also the name of its file → its class. Each drags in the libraries of its own data, and no others."""


def kind_of(recipe: Recipe) -> Kind:
    """The kind of a recipe, by the name of its task."""
    return _named(recipe.task.name)  # pyright: ignore[reportAttributeAccessIssue] (every task section has one)


@cache
def _named(task: str) -> Kind:
    return getattr(import_module(f"visionpeft.runs.kinds.{task}"), KINDS[task])()
