"""The figures as rich tables, one a network."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from visionpeft.bench.compare import Row

COLUMNS = ("trainable", "CPU s/step", "to full", "to floor", "saved MiB", "saved to full", "merge ms", "file KiB")


def print_rows(rows: Sequence[Row]) -> None:
    """Print the rows, as wide as the terminal or 120 columns into a file."""
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    for net, own in groupby(rows, key=lambda row: row.net):
        table = Table(title=net, title_justify="left", show_edge=False)
        table.add_column("")
        for column in COLUMNS:
            table.add_column(column, justify="right")
        for row in own:
            table.add_row(row.label, *cells(row))
        console.print(table)


def cells(row: Row) -> list[str]:
    """The figures of a row, rounded for reading."""
    return [
        f"{row.trainable:,}",
        f"{row.seconds:.3f}",
        f"{row.to_full:.2f}",
        f"{row.to_floor:.2f}",
        f"{row.saved_bytes / 2**20:.1f}",
        f"{row.saved_to_full:.2f}",
        "fails" if row.merge_error else "" if row.merge_seconds is None else f"{1e3 * row.merge_seconds:.0f}",
        f"{row.file_bytes / 2**10:,.0f}" if row.file_bytes else "",
    ]
