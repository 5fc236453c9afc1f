"""Names of methods. A file in this package that registers a class is all it takes to add one."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from typing import Any, TypeVar

from visionpeft.algebra.method import Options
from visionpeft.errors import OptionError, did_you_mean, unknown

_REGISTRY: dict[str, type[Options]] = {}
_COMBINATORS: dict[str, Callable[[type[Options]], type[Options]]] = {}
M = TypeVar("M", bound=type[Options])


def register(cls: M) -> M:
    """Class decorator: make a method known under its ``name``."""
    assert cls.name and cls.name not in _REGISTRY, f"method name {cls.name!r} is empty or taken"
    _REGISTRY[cls.name] = cls
    return cls


def combinator(name: str, over: Callable[[type[Options]], type[Options]]) -> None:
    """Make ``name(METHOD)`` a method: ``over`` builds its class from that of METHOD."""
    _COMBINATORS[name] = over


@cache
def _load_all() -> None:
    package = importlib.import_module("visionpeft.methods")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def methods() -> dict[str, type[Options]]:
    """All registered methods: name → frozen dataclass whose fields are the options."""
    _load_all()
    return dict(sorted(_REGISTRY.items()))


def find(name: str) -> type[Options]:
    """The class of a registered name, or of a combinator's: ``dora(NAME)`` is DoRA over any additive method.

    Raises:
        UnknownNameError: no such method; the message shows near names.
    """
    known = methods()
    if name in known:
        return known[name]
    outer, _, inner = name.removesuffix(")").partition("(")
    if inner and outer in _COMBINATORS:
        return _COMBINATORS[outer](find(inner))
    raise unknown("method", name, known)


def make(name: str, options: dict[str, Any] | None = None) -> Options:
    """Build a method from its name and options.

    Raises:
        UnknownNameError: no such method.
        OptionError: an option the method does not have, or a value it does not accept.
    """
    cls, options = find(name), dict(options or {})
    known = [f.name for f in fields(cls)]
    for key in options:
        if key not in known:
            raise OptionError(f"{name}: unknown option {key!r} (found {options[key]!r}).{did_you_mean(key, known)}")
    return cls(**options)
