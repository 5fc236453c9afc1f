"""What ``convert`` and ``formats check`` print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from visionpeft.cli.printing import console, print_pairs

if TYPE_CHECKING:
    from visionpeft.export.exchange import Adopted, Checked, Exchanged
    from visionpeft.export.exchange.lowrank import Fit

WORST = 10


def print_converted(done: Exchanged | Adopted, every: bool = False) -> None:
    """What is missing layer by layer, in all, what was left out, and what the tool made of the file."""
    out = console()
    if every or done.error:
        _print_layers(done.layers, every)
    ranks = [fit.rank for fit in done.layers if fit.rank is not None]
    shown = f", ranks {min(ranks)} to {max(ranks)}" if ranks else ""
    out.print(Text(f"{len(done.layers)} layers{shown}; relative error {done.error:.1e} in all"), soft_wrap=True)
    _print_dropped(done.dropped)
    match = getattr(done, "match", None)
    if match is not None:
        out.print(Text(str(match)), soft_wrap=True)
    else:
        options = ", ".join(f"{key}={value}" for key, value in done.options.items())  # pyright: ignore[reportAttributeAccessIssue]
        out.print(Text(f"as {done.method}({options})"), soft_wrap=True)  # pyright: ignore[reportAttributeAccessIssue]
    out.print(Text(str(done.path)), soft_wrap=True)


def _print_layers(layers: tuple[Fit, ...], every: bool) -> None:
    shown = layers if every else sorted(layers, key=lambda fit: -fit.relative)[:WORST]
    title = None if len(shown) == len(layers) else f"the {len(shown)} layers with the largest error, of {len(layers)}"
    table = Table("layer", "rank", "relative error", show_edge=False, title=title, title_justify="left")
    table.columns[0].overflow = "fold"
    for fit in shown:
        table.add_row(Text(fit.path), "–" if fit.rank is None else str(fit.rank), f"{fit.relative:.1e}")
    console().print(table)


def _print_dropped(dropped: Mapping[str, str]) -> None:
    if not dropped:
        return
    table = Table("left out", "why", show_edge=False)
    for name, reason in dropped.items():
        table.add_row(Text(name, overflow="fold"), Text(reason, overflow="fold"))
    console().print(table)


def print_checked(found: Checked) -> None:
    """What a file is, what it says of itself, which tools load it, and what an adapter of ours leaves out."""
    out = console()
    out.print(Text(f"{found.path}: {found.form}"), soft_wrap=True)
    print_pairs(dict(found.holds))
    if found.says:
        out.print(Text("\nit says of itself"))
        print_pairs({key: str(value) for key, value in found.says.items()})
    out.print(Text("\nwho loads it"))
    print_pairs(found.tools)
    if found.dropped:
        out.print(Text(""))
        _print_dropped(found.dropped)
