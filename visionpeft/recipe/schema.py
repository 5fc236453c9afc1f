"""The JSON Schema of recipes, for editors; method options come from the registered dataclasses."""

from __future__ import annotations

import dataclasses
import functools
import operator
import typing
from typing import Any

from pydantic import TypeAdapter

from visionpeft.recipe.kinds import KINDS
from visionpeft.recipe.sections import WITHOUT_ADAPTER

_WRAPPED = {
    "type": "object",
    "properties": {"name": {"pattern": r"^dora\(.+\)$", "description": "DoRA over another additive method"}},
    "required": ["name"],
}


def recipe_schema() -> dict[str, Any]:
    """Draft 2020-12 schema; ``method`` is one branch a registered method with its own options."""
    from visionpeft.methods import methods

    schema = TypeAdapter(functools.reduce(operator.or_, KINDS.values())).json_schema()
    branches = [_branch(name, cls) for name, cls in sorted(methods().items())]
    branches += [_object(name, "weights of the network itself, no adapter", {}) for name in WITHOUT_ADAPTER]
    branches.append(_WRAPPED)
    schema["$defs"]["Method"] = {"title": "Method", "oneOf": branches}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Recipe", **schema}


def _branch(name: str, cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    fields = [field for field in dataclasses.fields(cls) if field.init and field.name != "name"]
    options = {field.name: _option(hints[field.name], field) for field in fields}
    return _object(name, (cls.__doc__ or name).strip().splitlines()[0], options)


def _option(hint: Any, field: dataclasses.Field[Any]) -> dict[str, Any]:
    try:
        found = TypeAdapter(hint).json_schema()
    except Exception:  # an option may be of any Python type; an editor then accepts every value
        found = {}
    if isinstance(field.default, (bool, int, float, str)):
        found["default"] = field.default
    return found


def _object(name: str, title: str, options: dict[str, Any]) -> dict[str, Any]:
    properties = {"name": {"const": name, "description": title}, **options}
    return {"type": "object", "properties": properties, "required": ["name"], "additionalProperties": False}
