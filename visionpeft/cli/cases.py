"""What ``datasets check`` prints about cases with masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from visionpeft.cli.printing import console
from visionpeft.data.segmentation.cards import SegmentationCard
from visionpeft.data.segmentation.check import Findings, Row, check
from visionpeft.data.segmentation.sheet import write_sheet
from visionpeft.data.tables import PARTS
from visionpeft.errors import DataError


def check_cases(card: SegmentationCard, sheet: Path | None) -> None:
    """Print a line a case, the balance of the classes, notes and faults; draw the sheet if one is asked for.

    Raises:
        DataError: something is broken (all of it is printed first).
    """
    found = check(card)
    out = console()
    if found.rows:
        out.print(_cases(card.name, found))
        out.print(_balance(found))
    for kind, lines in (("note", found.notes), ("broken", found.broken)):
        for line in lines:
            out.print(Text(f"{kind}: {line}", style="red" if kind == "broken" else "yellow"), soft_wrap=True)
    if sheet and found.table and found.rows:
        out.print(Text(f"sheet: {write_sheet(sheet, found.table, [row.index for row in found.rows])}"), soft_wrap=True)
    if found.broken:
        raise DataError(f"data set {card.name!r} is broken in {len(found.broken)} place(s)")


def _cases(name: str, found: Findings) -> Table:
    table = Table(title=f"{name}: {len(found.rows)} cases", title_justify="left", show_edge=False)
    for column in ("case", "group", "part", "size", "mm", "order", *found.classes):
        table.add_column(column, justify="left" if column in ("case", "group", "part") else "right")
    for row in found.rows:
        spacing = " ".join(f"{size:.3g}" for size in row.spacing)
        cells = [row.key, row.group, row.part, "×".join(map(str, row.shape)), spacing, row.orientation or "–"]
        table.add_row(*map(Text, cells), *(f"{share:.2%}" for share in row.shares))
    return table


def _balance(found: Findings) -> Table:
    """Share of the voxels of each part that a class has, and in how many cases it occurs."""
    title = "share of the voxels (cases that show it)"
    table = Table("class", *PARTS, title=title, title_justify="left", show_edge=False)
    for label, name in enumerate(found.classes):
        cells = [_share([row for row in found.rows if row.part == part], label) for part in PARTS]
        table.add_row(Text(name), *cells)
    return table


def _share(rows: Sequence[Row], label: int) -> str:
    if not rows:
        return "–"
    mean = sum(row.shares[label] for row in rows) / len(rows)
    return f"{mean:.2%} ({sum(row.shares[label] > 0 for row in rows)} of {len(rows)})"
