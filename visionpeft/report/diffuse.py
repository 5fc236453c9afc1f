"""What a report says of diffusion: the same captions drawn by every entry, and by the main one while it learned."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

import torch
from torch import Tensor

from visionpeft.files import atomic_write
from visionpeft.report.content import Content
from visionpeft.report.markup import picture, section, tag, void
from visionpeft.report.picture_grid import Column, as_png, picture_grid
from visionpeft.runs.kinds.diffuse import TARGETS, Drawn
from visionpeft.runs.weights import read_tensors

GRID = "grid.png"
"""The picture grid, beside the report."""
ROWS = 10
TILE = 96
_SEED = "All entries draw a caption from the same noise, so that a row differs by the weights alone."


def sections(content: Content) -> str:
    """The samples of all entries, then the previews of the main one."""
    return samples(content) + progress(content)


def samples(content: Content) -> str:
    """A row a caption; what every entry draws, and the real picture."""
    columns = _columns(content)
    if not columns:
        return ""
    captions = _spread(content.pictures["captions"])
    data = as_png(picture_grid(captions, columns, tile=TILE))
    atomic_write(content.folder / GRID, data)
    address = "data:image/png;base64," + base64.b64encode(data).decode()
    image = void("img", src=address, alt="captions drawn by every entry", class_="grid")
    return section("Samples", tag("div", image, class_="scroll"), lead=_SEED)


def progress(content: Content) -> str:
    """What the main entry drew while it trained, a row a validation."""
    trial = content.trials(content.result.main.label)[0]
    files = sorted((content.folder / trial.folder / "previews").glob("step-*.png"))
    rows = [_preview(path) for path in files]
    lead = f"{escape(content.result.main.label)}, the same captions and noise at every validation."
    return section("Previews", *rows, lead=lead)


def _columns(content: Content) -> list[Column]:
    """One an entry that drew the same captions as the main one, of its first seed, then the real pictures."""
    drawn: dict[str, Drawn] = {entry.label: content.tested(entry.label)[0] for entry in content.entries}
    wanted = drawn[content.result.main.label].sampled_positions
    if not len(wanted):
        return []
    shown = {label: found for label, found in drawn.items() if torch.equal(found.sampled_positions, wanted)}
    columns = [Column(label, _some(found.sampled)) for label, found in shown.items()]
    real = read_tensors(content.folder / TARGETS)["pictures"].permute(0, 3, 1, 2)
    return [*columns, Column("real", _some(real), apart=True)]


def _some(pictures: Tensor) -> Tensor:
    return torch.stack(_spread(list(pictures)))


def _spread(values: list) -> list:
    """At most :data:`ROWS` of them, evenly spread."""
    count = min(ROWS, len(values))
    return [values[n * len(values) // count] for n in range(count)]


def _preview(path: Path) -> str:
    return tag("figure", void("img", src=picture(path), alt=_step(path)), tag("figcaption", _step(path)))


def _step(path: Path) -> str:
    return f"step {int(path.stem.removeprefix('step-')):,}"
