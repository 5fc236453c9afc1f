"""The kinds of recipes, by the name of their task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visionpeft.errors import OptionError, did_you_mean
from visionpeft.recipe.align import AlignRecipe
from visionpeft.recipe.autoencode import AutoencodeRecipe
from visionpeft.recipe.classify import ClassifyRecipe
from visionpeft.recipe.diffuse import DiffuseRecipe
from visionpeft.recipe.fewshot import FewShotRecipe
from visionpeft.recipe.sections import Recipe
from visionpeft.recipe.segment import SegmentRecipe

KINDS: dict[str, type[Recipe]] = {
    "align": AlignRecipe,
    "autoencode": AutoencodeRecipe,
    "classify": ClassifyRecipe,
    "diffuse": DiffuseRecipe,
    "fewshot": FewShotRecipe,
    "segment": SegmentRecipe,
}


def kind_of(data: Mapping[str, Any], origin: str) -> type[Recipe]:
    """The kind that plain data names by ``task.name``; without a name, classification.

    Raises:
        OptionError: no task has this name; near names are shown.
    """
    task = data.get("task")
    name = task.get("name", "classify") if isinstance(task, Mapping) else "classify"
    if name not in KINDS:
        raise OptionError(f"{origin}: task.name: there is no task {name!r}.{did_you_mean(str(name), KINDS)}")
    return KINDS[name]
