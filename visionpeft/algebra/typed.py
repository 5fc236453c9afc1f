"""Whether the value of an option fits the type its field declares, and how to say what would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text", NoneType: "nothing"}


@cache
def declared(cls: type) -> dict[str, Any]:
    """Field → declared type, resolved once a class."""
    return get_type_hints(cls)


def fits(value: object, hint: Any) -> bool:
    """Whether a value is of a declared type. True and False are no numbers, and numbers are finite."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin is Sequence or origin is tuple:
        return isinstance(value, list | tuple) and all(fits(entry, parts[0]) for entry in value)
    if parts:
        return any(fits(value, part) for part in parts)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def words(hint: Any) -> str:
    """A declared type in words, for messages: ``a list of whole numbers or nothing``."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is Sequence or origin is tuple:
        return f"a list, each entry {words(parts[0])}"
    if parts:
        return " or ".join(words(part) for part in parts)
    return _WORDS.get(hint) or hint.__name__
