"""A recipe unfolds into entries: the main one, one a ``compare`` item, one a ``sweep`` value."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from visionpeft.errors import OptionError
from visionpeft.recipe.loading import recipe_from
from visionpeft.recipe.overrides import set_path
from visionpeft.recipe.sections import MERGED, Compare, Recipe


@dataclass(frozen=True)
class Entry:
    """One row of the result table: a recipe without ``compare`` and ``sweep``, to be run once a seed and fold.

    Args:
        label: its name in tables.
        recipe: what is run.
        group: the label of all values of a sweep; the label itself where nothing is swept.
        main: whether it is the recipe's own entry (or one of its sweep), not one to compare with.
        swept: the value a sweep gave this entry.
    """

    label: str
    recipe: Recipe
    group: str
    main: bool = False
    swept: Any = None

    @property
    def slug(self) -> str:
        """The label as a folder name."""
        return re.sub(r"[^a-z0-9.]+", "-", self.label.lower()).strip("-.") or "entry"


def entries(recipe: Recipe) -> list[Entry]:
    """All entries, the main one first. A sweep puts one entry a value in the place of the main one.

    A sweep of the method's options is the main entry's alone; of anything else (data, trainer, …) also that of what it
    is compared with, as all must see the same.

    Raises:
        OptionError: an entry does not make a valid recipe, or two entries share a label.
    """
    base = recipe.content()
    for key in ("compare", "sweep", "baselines", "label"):
        base.pop(key, None)
    label = recipe.label or recipe.method.name
    listed = [Entry(label, recipe_from(base, "recipe"), label, main=True)]
    listed += [_compared(base, item, index) for index, item in enumerate(recipe.compare)]
    found = [made for entry in listed for made in _swept(entry, recipe.sweep)]
    slugs = [entry.slug for entry in found]
    for entry in found:
        if slugs.count(entry.slug) > 1:
            raise OptionError(f"compare: the label {entry.label!r} is used twice; give each entry its own")
    return found


def _swept(entry: Entry, sweep: dict[str, list[Any]]) -> list[Entry]:
    """The entry once for each value of the sweep, or as it is."""
    made = []
    for path, values in sweep.items():
        if not entry.main and path.startswith("method."):
            continue
        for value in values:
            data = _copy(entry.recipe.content())
            set_path(data, path, value)
            name = f"{entry.label}, {path.rsplit('.', 1)[-1]} {value}"
            swept = recipe_from(data, f"sweep {path}={value}")
            made.append(replace(entry, label=name, recipe=swept, swept=value))
    return made or [entry]


def _compared(base: dict[str, Any], item: Compare, index: int) -> Entry:
    data = _copy(base)
    changes = item.model_dump(mode="json", exclude_unset=True, exclude={"label"})
    if item.tune is None and item.trainer is not None and "lr" in item.trainer.model_fields_set:
        data.pop("tune", None)  # its own learning rate, so nothing is left to tune
    if item.method is not None:
        data.pop("also", None)  # further adapters belong to the method they stand beside
    for key, value in changes.items():
        data[key] = {**data.get(key, {}), **value} if key in MERGED else value
    return Entry(item.label, recipe_from(data, f"compare.{index} ({item.label})"), item.label)


def _copy(data: dict[str, Any]) -> dict[str, Any]:
    return {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
