"""What ``datasets check`` prints about pictures for generative models."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from visionpeft.cli.printing import console
from visionpeft.data.pictures.cards import PicturesCard
from visionpeft.data.pictures.check import check_pictures
from visionpeft.data.pictures.sheet import write_sheet
from visionpeft.data.pictures.table import PictureTable
from visionpeft.data.tables import PARTS
from visionpeft.errors import DataError


def check_and_print(card: PicturesCard, sheet: Path | None) -> None:
    """Print pictures a part, then notes and faults; draw the sheet if one is asked for.

    Raises:
        DataError: the data set cannot be opened, or something is broken (all of it is printed first).
    """
    progress = partial(track, description="reading", console=Console(stderr=True), transient=True)
    table, found = check_pictures(card, progress)
    out = console()
    if table is not None:
        out.print(_counts(card.name, table))
    for kind, lines in (("note", found.notes), ("broken", found.broken)):
        for line in lines:
            out.print(Text(f"{kind}: {line}", style="red" if kind == "broken" else "yellow"), soft_wrap=True)
    if sheet and table is not None:
        out.print(Text(f"sheet: {write_sheet(sheet, table)}"), soft_wrap=True)
    if found.broken:
        raise DataError(f"data set {card.name!r} is broken in {len(found.broken)} place(s)")


def _counts(name: str, table: PictureTable) -> Table:
    """Pictures, concepts, classes and captions of each part, and a caption for example."""
    size, columns = table.images.shape[1], ("pictures", "concepts", "classes", "captions")
    title = f"{name}: {len(table):,} pictures of {size}×{size} pixels, sha256 {table.sha256}"
    shown = Table("part", title=title, title_justify="left", show_edge=False)
    for column in columns:
        shown.add_column(column, justify="right")
    shown.add_column("for example")
    for part in PARTS:
        rows = table.indices(part).tolist()
        told = [table.texts[row] for row in rows if any(table.texts[row])]
        counts = (len(rows), len({table.concepts[row] for row in rows}), len({int(table.labels[row]) for row in rows}))
        shown.add_row(part, *(f"{count:,}" for count in (*counts, len(told))), Text(told[0][0] if told else "–"))
    return shown
