"""A sheet of pictures with their parts and captions."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from visionpeft.data.pictures.table import PictureTable
from visionpeft.files import atomic_write

COLUMNS, LIMIT = 8, 48
LETTERS = 24  # of a caption in a line; two lines are shown


def write_sheet(path: str | Path, table: PictureTable) -> Path:
    """Draw up to :data:`LIMIT` pictures, evenly chosen from the table, as a PNG."""
    chosen = np.unique(np.linspace(0, len(table) - 1, min(LIMIT, len(table))).astype(int)).tolist()
    rows = -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(1.6 * COLUMNS, 1.95 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place in range(rows * COLUMNS):
        axes = figure.add_subplot(rows, COLUMNS, place + 1)
        axes.axis("off")
        if place < len(chosen):
            index = chosen[place]
            axes.imshow(table.images[index])
            said = textwrap.wrap(f"{table.split[index]}: {table.texts[index][0]}", LETTERS)[:2]
            axes.set_title("\n".join(said).replace("$", r"\$"), fontsize=7)  # a dollar would begin a formula
    return atomic_write(path, lambda target: figure.savefig(target, dpi=100, format="png"))
