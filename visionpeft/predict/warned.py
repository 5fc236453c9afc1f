"""What this library warns of, told where its user looks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def warned(tell: Callable[[str], object]) -> Iterator[None]:
    """Context in which our warnings go to ``tell``, each text once; those of other libraries stay as they are."""
    with warnings.catch_warnings():
        before = warnings.showwarning
        warnings.filterwarnings("once", category=UserWarning, module=r"visionpeft\.")

        def show(message: Warning | str, category: type[Warning], *where: object) -> None:
            if category is UserWarning:
                tell(str(message))
            else:
                before(message, category, *where)  # pyright: ignore[reportArgumentType]

        warnings.showwarning = show  # pyright: ignore[reportAttributeAccessIssue]
        yield
