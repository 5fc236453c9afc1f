"""Changes given on the command line: ``method.rank=16``, ``compare.0.trainer.lr=3e-3``."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from visionpeft.errors import OptionError
from visionpeft.recipe.yaml import parse


def apply_overrides(data: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of ``data`` with every ``key.path=value`` applied in order; the value is read as YAML.

    Raises:
        OptionError: an override has no ``=``, or its path runs into a value or past the end of a list.
    """
    data = copy.deepcopy(data)
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path.strip():
            raise OptionError(f"--set {override!r}: expected key.path=value, for instance method.rank=16")
        set_path(data, path.strip(), parse(text, f"--set {override!r}"))
    return data


def set_path(data: dict[str, Any], path: str, value: Any) -> None:
    """Set ``data[a][b][c] = value`` for the path ``a.b.c``; numbers index lists."""
    *parents, last = path.split(".")
    place: Any = data
    for step in parents:
        if isinstance(place, dict):
            if place.get(step) is None:
                place[step] = {}
            place = place[step]
        else:
            place = place[_index(place, step, path)]
    if isinstance(place, dict):
        place[last] = value
    else:
        place[_index(place, last, path)] = value


def _index(place: Any, step: str, path: str) -> int:
    if not isinstance(place, list):
        raise OptionError(f"--set {path}: {step!r} would lie inside the value {place!r}, which has no keys")
    if not step.isdigit() or int(step) >= len(place):
        right = f"a number from 0 to {len(place) - 1}" if place else "nothing: the list is empty"
        raise OptionError(f"--set {path}: {step!r} indexes a list; right would be {right}")
    return int(step)
