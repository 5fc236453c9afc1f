"""From what a card says of a style to a function that redraws pictures."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from visionpeft.data.pictures.styles.ink import ink
from visionpeft.data.pictures.styles.options import InkStyle, PaintedStyle
from visionpeft.data.pictures.styles.painted import Painter

Redraw = Callable[[np.ndarray], np.ndarray]
"""Pictures uint8 ``(N, S, S, 3)`` to as many, each by itself."""


def redrawing(style: InkStyle | PaintedStyle) -> Redraw:
    """The function that redraws pictures in the style; UserError if its package is not installed."""
    return partial(ink, style=style) if isinstance(style, InkStyle) else Painter(style)
