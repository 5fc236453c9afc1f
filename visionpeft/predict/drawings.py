"""Drawn pictures as files: a PNG each that says what it was drawn with, and a grid of all."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin
from torch import Tensor

from visionpeft.errors import OptionError, UserError
from visionpeft.files import atomic_write
from visionpeft.report.picture_grid import Column, as_png, picture_grid

KEY = "visionpeft"
"""The text entry of a PNG that holds, as JSON, what the picture was drawn with."""
GRID = "grid.png"
_TILES = 96, 256  # smallest and largest side of a picture in the grid


@dataclass(frozen=True, eq=False)
class Drawing:
    """A picture, uint8 ``(3, H, W)``, with its prompt and seed."""

    picture: Tensor
    prompt: str
    seed: int


def check_place(output: Path, pictures: int, grid: bool) -> None:
    """Raise UserError where pictures cannot go.

    ``output`` is a folder that is not there yet or is empty, or for a single picture a file that is not there.
    """
    if output.suffix.lower() == ".png":
        if pictures != 1 or grid:
            what = "a grid beside the pictures" if grid else f"{pictures} pictures"
            raise OptionError(f"{output} is one file: {what} need a folder")
    elif output.suffix and not output.is_dir():
        raise OptionError(f"pictures are written as PNG: {output} is neither a .png file nor a folder")
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise UserError(f"{output} exists already: choose another --output")


def write_drawings(output: Path, drawings: Sequence[Drawing], settings: Mapping[str, Any]) -> list[Path]:
    """Write a PNG each, with prompt, seed and ``settings`` inside, and return their paths."""
    paths = []
    for number, drawing in enumerate(drawings):
        path = output if output.suffix.lower() == ".png" else output / _name(number, drawing)
        paths.append(atomic_write(path, png(drawing, settings)))
    return paths


def png(drawing: Drawing, settings: Mapping[str, Any]) -> bytes:
    """The file of a picture."""
    from visionpeft import __version__

    told = {"prompt": drawing.prompt, "seed": drawing.seed, **settings, "version": __version__}
    entries, stream = PngImagePlugin.PngInfo(), io.BytesIO()
    entries.add_itxt(KEY, json.dumps(told, ensure_ascii=False))
    entries.add_itxt("Description", drawing.prompt)
    pixels = np.ascontiguousarray(drawing.picture.permute(1, 2, 0).numpy())
    Image.fromarray(pixels).save(stream, "PNG", pnginfo=entries)
    return stream.getvalue()


def write_grid(output: Path, drawings: Sequence[Drawing], title: str) -> Path:
    """Write prompts down and seeds across as one picture."""
    prompts = list(dict.fromkeys(drawing.prompt for drawing in drawings))
    seeds = list(dict.fromkeys(drawing.seed for drawing in drawings))
    found = {(drawing.prompt, drawing.seed): drawing.picture for drawing in drawings}
    columns = [Column(f"seed {seed}", [found.get((prompt, seed)) for prompt in prompts]) for seed in seeds]
    tile = min(max(drawings[0].picture.shape[-1], _TILES[0]), _TILES[1])
    return atomic_write(output / GRID, as_png(picture_grid(prompts, columns, tile=tile, title=title)))


def _name(number: int, drawing: Drawing) -> str:
    words = re.sub(r"\W+", "-", drawing.prompt.lower()).strip("-")[:40].rstrip("-")
    return "-".join(part for part in (f"{number:03d}", words, f"seed{drawing.seed}") if part) + ".png"
