"""Pictures in rows and columns with labels, as one PNG: prompts down, the source, each method and the target across."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from visionpeft.errors import OptionError

INK, FAINT, LINE, PAPER = "#1b1f24", "#6a737d", "#d5d9de", "#ffffff"
_GAP, _APART, _MARGIN = 6, 20, 16  # pixels between pictures, before a column that stands apart, and around all
_LEAD = 1.3  # line height in font sizes


@dataclass(frozen=True)
class Column:
    """Pictures one below the other.

    Attributes:
        title: the heading.
        pictures: uint8 ``(N, 3, S, S)``, or a list with None where there is no picture.
        note: a smaller line under the heading, as a figure.
        apart: a wider gap and a line on its left: to set the source and the target off from the methods.
    """

    title: str
    pictures: Tensor | Sequence[Tensor | None]
    note: str = ""
    apart: bool = False


def picture_grid(prompts: Sequence[str], columns: Sequence[Column], *, tile: int = 96, title: str = "") -> Image.Image:
    """The grid as an RGB picture; headings are wrapped, and prompts too, as far as the height of a row allows.

    Args:
        prompts: one a row, on its left.
        columns: from left to right, each with a picture a prompt.
        tile: pixels of a picture's side in the grid.
        title: a line above all; empty leaves none.

    Raises:
        OptionError: no prompt, no column, a column of another length, or a picture that is no uint8 ``(3, H, W)``.
    """
    _check(prompts, columns)
    plan = _Plan.of(prompts, columns, tile, title)
    sheet = Image.new("RGB", plan.size, PAPER)
    pen = ImageDraw.Draw(sheet)
    if title:
        pen.text((_MARGIN, _MARGIN), title, INK, plan.bold)
    for column, left in zip(columns, plan.lefts, strict=True):
        _heading(pen, plan, column, left)
        for row, picture in enumerate(column.pictures):
            _place(sheet, pen, picture, (left, plan.top + row * (tile + _GAP)), tile)
    for row, lines in enumerate(plan.prompts):
        height = len(lines) * plan.step
        middle = plan.top + row * (tile + _GAP) + (tile - height) // 2
        _write(pen, lines, plan.left - _GAP - 4, middle, plan.plain, plan.step, INK, "ra")
    return sheet


def as_png(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return stream.getvalue()


@dataclass(frozen=True)
class _Plan:
    """Where everything goes: found before anything is drawn, since the texts decide how much room they need."""

    size: tuple[int, int]
    left: int  # of the first picture
    top: int
    lefts: tuple[int, ...]
    prompts: tuple[list[str], ...]
    titles: tuple[list[str], ...]
    notes: tuple[list[str], ...]
    plain: ImageFont.FreeTypeFont
    bold: ImageFont.FreeTypeFont
    small: ImageFont.FreeTypeFont
    step: int  # of a line of text

    @classmethod
    def of(cls, prompts: Sequence[str], columns: Sequence[Column], tile: int, title: str) -> _Plan:
        points = max(11, round(tile / 7.5))
        plain, bold, small = _font(points), _font(points, bold=True), _font(points - 2)
        step = round(_LEAD * points)
        wrapped = tuple(_wrap(text, plain, round(1.6 * tile), max(1, tile // step)) for text in prompts)
        left = _MARGIN + max(_width(lines, plain) for lines in wrapped) + _GAP + 6
        titles = tuple(_wrap(column.title, bold, tile) for column in columns)
        notes = tuple(_wrap(column.note, small, tile) if column.note else [] for column in columns)
        head = max(len(above) + len(below) for above, below in zip(titles, notes, strict=True)) * step
        top = _MARGIN + (2 * step if title else 0) + head + _GAP
        lefts = [left]
        for column in columns[1:]:
            lefts.append(lefts[-1] + tile + (_APART if column.apart else _GAP))
        right = max(lefts[-1] + tile, _MARGIN + _width([title], bold))
        size = right + _MARGIN, top + len(prompts) * (tile + _GAP) - _GAP + _MARGIN
        return cls(size, left, top, tuple(lefts), wrapped, titles, notes, plain, bold, small, step)


def _check(prompts: Sequence[str], columns: Sequence[Column]) -> None:
    if not prompts or not columns:
        raise OptionError(f"a grid needs prompts and columns, found {len(prompts)} and {len(columns)}")
    for column in columns:
        if len(column.pictures) != len(prompts):
            raise OptionError(
                f"the column {column.title!r} has {len(column.pictures)} pictures for {len(prompts)} prompts"
            )
        for picture in column.pictures:
            if picture is not None and (picture.ndim != 3 or len(picture) != 3 or str(picture.dtype) != "torch.uint8"):
                raise OptionError(
                    f"the column {column.title!r} needs uint8 pictures (3, H, W), found {picture.dtype} "
                    f"{tuple(picture.shape)}"
                )


def _heading(pen: ImageDraw.ImageDraw, plan: _Plan, column: Column, left: int) -> None:
    """Title and note, resting on the pictures; a line before a column that stands apart."""
    place = plan.lefts.index(left)
    titles, notes = plan.titles[place], plan.notes[place]
    start = plan.top - _GAP - (len(titles) + len(notes)) * plan.step
    _write(pen, titles, left, start, plan.bold, plan.step, INK)
    _write(pen, notes, left, start + len(titles) * plan.step, plan.small, plan.step, FAINT)
    if column.apart:
        across = left - _APART // 2
        pen.line((across, plan.top, across, plan.size[1] - _MARGIN), LINE)


def _place(
    sheet: Image.Image, pen: ImageDraw.ImageDraw, picture: Tensor | None, corner: tuple[int, int], tile: int
) -> None:
    """A picture in a hairline frame, so that white pictures have an edge; a dash where there is none."""
    x, y = corner
    if picture is None:
        pen.text((x + tile / 2, y + tile / 2), "–", FAINT, _font(tile // 5), anchor="mm")
    else:
        values = np.ascontiguousarray(picture.permute(1, 2, 0).cpu().numpy())
        sheet.paste(Image.fromarray(values).resize((tile, tile), Image.Resampling.LANCZOS), corner)
    pen.rectangle((x, y, x + tile - 1, y + tile - 1), outline=LINE)


def _write(
    pen: ImageDraw.ImageDraw,
    lines: Sequence[str],
    x: float,
    y: float,
    font: ImageFont.FreeTypeFont,
    step: int,
    colour: str,
    anchor: str = "la",
) -> None:
    for place, line in enumerate(lines):
        pen.text((x, y + place * step), line, colour, font, anchor=anchor)


@cache
def _font(points: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu, which matplotlib carries: Pillow's own font lacks most accents and signs."""
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans{'-Bold' if bold else ''}.ttf", points)


def _width(lines: Sequence[str], font: ImageFont.FreeTypeFont) -> int:
    return int(max((font.getlength(line) for line in lines), default=0)) + 1


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int, most: int | None = None) -> list[str]:
    """Lines no wider than ``width``; longer words are divided, and what exceeds ``most`` lines ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        if font.getlength(f"{lines[-1]} {word}".strip()) <= width:
            lines[-1] = f"{lines[-1]} {word}".strip()
            continue
        pieces = _divided(word, font, width)
        lines += pieces if lines[-1] else []
        lines = lines if lines[-1] else pieces
    if most and len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1]} …"]
    return lines


def _divided(word: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The word in pieces that fit; at an underscore or hyphen where one is near."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            cut = max(pieces[-1].rfind("_"), pieces[-1].rfind("-")) + 1 or len(pieces[-1])
            pieces[-1:] = [pieces[-1][:cut], pieces[-1][cut:]]
        pieces[-1] += letter
    return pieces
