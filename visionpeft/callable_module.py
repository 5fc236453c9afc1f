"""``vp.methods()`` and ``vp.run(…)`` are functions, and ``visionpeft.methods`` and ``visionpeft.run`` are modules.

Python binds a submodule under its name on the package when it is first imported, so the same name must answer to both
uses: the module itself is made callable.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def make_callable(name: str, function: Callable[..., Any]) -> None:
    """Let calls of module ``name`` go to ``function``."""

    class CallableModule(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

    sys.modules[name].__class__ = CallableModule
