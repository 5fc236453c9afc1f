"""Where recipes meet the registry of methods: the only part of this room that needs torch."""

from __future__ import annotations

import typing
from typing import Any

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

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
        cls = find(section.name)
    except UnknownNameError:
        raise unknown("method", section.name, [*methods(), *WITHOUT_ADAPTER]) from None
    hints = typing.get_type_hints(cls)
    checked = {key: _typed(section.name, key, value, hints.get(key)) for key, value in section.options.items()}
    try:
        return make(section.name, checked)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise OptionError(f"method {section.name!r}: {error}") from error


def check_methods(recipe: Recipe) -> None:
    """Refuse a recipe of which an entry names a method or an option that does not exist."""
    for entry in entries(recipe):
        section = entry.recipe.method
        for method, _ in entry.recipe.adapters.values():
            build_method(method)
        if not section.adapts and section.options:
            raise OptionError(f"method {section.name!r} has no options, found {', '.join(section.options)}")


def _typed(method: str, key: str, value: Any, hint: Any) -> Any:
    """The value as the option's annotated type; an unknown key is left to the registry."""
    value = _frozen(value)
    if hint is None:
        return value
    try:
        return TypeAdapter(hint).validate_python(value, strict=True)
    except PydanticSchemaGenerationError:
        return value
    except ValidationError as error:
        raise OptionError(f"method.{key}: {method} cannot take {value!r}: {error.errors()[0]['msg']}") from None


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
