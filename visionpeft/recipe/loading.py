"""From a file, a shipped recipe's name or plain data to a checked :class:`Recipe`."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from visionpeft.errors import OptionError, UserError, did_you_mean, unknown
from visionpeft.files import resource
from visionpeft.recipe.kinds import kind_of
from visionpeft.recipe.overrides import apply_overrides
from visionpeft.recipe.sections import Recipe
from visionpeft.recipe.yaml import parse


def load_recipe(source: str | Path | Mapping[str, Any] | Recipe, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe at a path, under a shipped name (``classify/quickstart``), or from plain data.

    ``overrides`` are ``key.path=value`` strings. Method options are :func:`check_methods`' part.

    Raises:
        UserError: no such file, not YAML, an unknown key, or a value that does not fit.
    """
    if isinstance(source, (str, Path)):
        path = find_recipe(source)
        data, origin = parse(_read(path), str(path)), str(path)
    else:
        data, origin = source.content() if isinstance(source, Recipe) else dict(source), "recipe"
    if not isinstance(data, dict):
        raise OptionError(f"{origin}: a recipe is a mapping with keys such as backbone; found {data!r:.60}")
    return recipe_from(apply_overrides(data, overrides), origin)


def recipe_from(data: Mapping[str, Any], origin: str) -> Recipe:
    """Validate plain data; ``origin`` names the file in error messages."""
    kind = kind_of(data, origin)
    data = kind.written_out(data)
    try:
        return kind.model_validate_json(json.dumps(data))
    except (TypeError, ValueError) as error:
        if not isinstance(error, ValidationError):
            raise OptionError(f"{origin}: {error}") from error
        raise OptionError("\n".join(f"{origin}: {line}" for line in _explain(error.errors(), kind))) from None


def shipped_recipes() -> dict[str, Path]:
    """Name → file of the recipes that come with the package, for instance ``classify/quickstart``."""
    root = resource("recipes")
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def find_recipe(source: str | Path) -> Path:
    """The file if it exists, else the shipped recipe of that name; ``recipes/`` and ``.yaml`` are optional.

    Raises:
        UserError: neither; near names are shown.
    """
    path = Path(source)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    name = path.as_posix().removeprefix("recipes/").removesuffix(".yaml")
    if name in shipped:
        return shipped[name]
    raise unknown("recipe file or name", str(source), shipped)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the recipe {path}: {error}") from error


def _explain(details: list[ErrorDetails], recipe: type[Recipe]) -> list[str]:
    """One line a key: the key, the value found, and what would be right (a union's alternatives joined)."""
    lines: dict[str, list[str]] = {}
    for detail in details:
        steps = [step for step in detail["loc"] if not (isinstance(step, str) and _is_branch(step))]
        lines.setdefault(".".join(str(step) for step in steps), []).append(_complaint(detail, steps, recipe))
    return [" or ".join(dict.fromkeys(line)) if not key else f"{key}: {_joined(line)}" for key, line in lines.items()]


def _joined(complaints: list[str]) -> str:
    """``should be a whole number, found 'x'`` and ``should be a list, found 'x'`` share one ``found``."""
    if len(complaints) == 1:
        return complaints[0]
    found = complaints[0].rpartition(", found ")[2]
    rights = [complaint.rpartition(", found ")[0].removeprefix("should be ") for complaint in complaints]
    return f"should be {' or '.join(rights)}, found {found}"


def _complaint(detail: ErrorDetails, steps: list[Any], recipe: type[Recipe]) -> str:
    kind, message = detail["type"], detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if kind == "extra_forbidden":
        return f"unknown key.{did_you_mean(str(steps[-1]), _keys_at(recipe, steps[:-1]))}"
    if kind == "missing":
        return "this key is missing"
    if kind == "literal_error":
        expected = str(detail.get("ctx", {}).get("expected", ""))
        words = [word.strip("' ") for word in expected.replace(" or ", ", ").split(",")]
        near = did_you_mean(str(detail["input"]), words)
        return f"should be {expected}, found {detail['input']!r}{'.' + near if 'mean' in near else ''}"
    if kind == "value_error":
        return message
    for jargon, word in _PLAIN_WORDS.items():
        message = message.replace(jargon, word)
    return f"{message}, found {detail['input']!r:.80}"


_PLAIN_WORDS = {
    "a valid array": "a list",
    "an object": "a mapping of keys",
    "a valid dictionary": "a mapping of keys",
    "a valid integer": "a whole number",
    "a valid boolean": "true or false",
    "a valid ": "a ",
    "List should have at least 1 item after validation, not 0": "needs at least one value",
    "String should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$'": "should be a plain folder name",
}


def _is_branch(step: str) -> bool:
    """Whether pydantic put a union member's name into the path (``bool``, ``list[int]``, …)."""
    return step in {"bool", "str", "int", "float", "constrained-int", "none"} or "[" in step


def _keys_at(recipe: type[Recipe], loc: list[Any]) -> list[str]:
    section: Any = recipe
    for step in loc:
        if isinstance(step, str) and step in getattr(section, "model_fields", {}):
            section = _model_in(section.model_fields[step].annotation)
    return list(getattr(section, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    """The pydantic model inside ``X | None``, ``list[X]`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _model_in(part))), None)
