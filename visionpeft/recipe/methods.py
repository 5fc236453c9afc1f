"""Where recipes meet the registry of methods: the only part of this room that needs torch."""

from __future__ import annotations

import dataclasses
from typing import Any

from visionpeft.errors import OptionError, UserError, unknown
from visionpeft.recipe.sections import WITHOUT_ADAPTER, Method, Recipe


def build_method(section: Method) -> Any:
    """The method instance a recipe's ``method`` section describes.

    Raises:
        UserError: unknown method or option (near names shown), or a value the method refuses.
    """
    from visionpeft.methods import methods

    known = methods()
    if section.name not in known:
        raise unknown("method", section.name, [*known, *WITHOUT_ADAPTER])
    fields = {field.name for field in dataclasses.fields(known[section.name]) if field.init}
    for key in section.options:
        if key not in fields:
            raise unknown(f"option of method {section.name!r}", key, fields)
    try:
        return known[section.name](**{key: _frozen(value) for key, value in section.options.items()})
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise OptionError(f"method {section.name!r}: {error}") from error


def check_methods(recipe: Recipe) -> None:
    """Refuse a recipe (or one of its ``compare`` and ``sweep`` entries) whose method or options do not exist."""
    from visionpeft.recipe.entries import entries

    for entry in entries(recipe):
        section = entry.recipe.method
        if section.adapts:
            try:
                build_method(section)
            except UserError as error:
                raise OptionError(
                    f"entry {entry.label!r}: {error}" if recipe.compare or recipe.sweep else str(error)
                ) from error
        elif section.options:
            raise OptionError(f"method {section.name!r} has no options, found {', '.join(section.options)}")


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
