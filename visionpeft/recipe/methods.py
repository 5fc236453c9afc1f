"""Where recipes meet the registry of methods: the only part of this room that needs torch."""

from __future__ import annotations

from typing import Any

from visionpeft.errors import OptionError, UnknownNameError, UserError, unknown
from visionpeft.recipe.entries import entries
from visionpeft.recipe.sections import WITHOUT_ADAPTER, Method, Recipe


def build_method(section: Method) -> Any:
    """The method instance that a recipe's ``method`` section describes.

    Raises:
        UserError: unknown method or option (near names shown), or a value the method refuses.
    """
    from visionpeft.methods import find, make, methods

    try:
        find(section.name)
    except UnknownNameError:
        raise unknown("method", section.name, [*methods(), *WITHOUT_ADAPTER]) from None
    try:
        return make(section.name, {key: _frozen(value) for key, value in section.options.items()})
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise OptionError(f"method {section.name!r}: {error}") from error


def check_methods(recipe: Recipe) -> None:
    """Refuse a recipe of which an entry names a method or an option that does not exist."""
    for entry in entries(recipe):
        section = entry.recipe.method
        if section.adapts:
            build_method(section)
        elif section.options:
            raise OptionError(f"method {section.name!r} has no options, found {', '.join(section.options)}")


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
