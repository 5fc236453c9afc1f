"""Small helpers that write HTML; every text that comes from outside is escaped here."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from visionpeft.runs.kinds import Figure


def tag(name: str, *children: str, **attributes: str) -> str:
    """``<name …>children</name>``; children are markup already, attribute values are escaped (``class_`` → class)."""
    shown = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return f"<{name}{shown}>{''.join(children)}</{name}>"


def void(name: str, **attributes: str) -> str:
    """``<name …>``, an element that holds nothing; attributes as in :func:`tag`."""
    return tag(name, **attributes).removesuffix(f"</{name}>")


def drawing(svg: str, single: bool = False) -> str:
    """A plot in its frame; empty if there is none. ``single`` plots stay narrower."""
    return tag("div", svg, class_="plot single" if single else "plot") if svg else ""


def section(title: str, *children: str, lead: str = "", id_: str = "") -> str:
    """A titled part of the page; empty if it has nothing to show."""
    if not any(children):
        return ""
    intro = tag("p", escape(lead), class_="lead") if lead else ""
    return tag("section", tag("h2", escape(title)), intro, *children, id=id_ or title.lower().replace(" ", "-"))


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = (), class_: str = "") -> str:
    """A table that scrolls sideways on narrow screens; cells are markup already; ``numeric`` columns align right."""
    right = set(numeric)

    def line(cells: Sequence[str], cell: str) -> str:
        return tag("tr", *(tag(cell, text, class_="n" if i in right else "t") for i, text in enumerate(cells)))

    body = tag("tbody", *(line(cells, "td") for cells in rows))
    return tag("div", tag("table", tag("thead", line(head, "th")), body, class_=class_), class_="scroll")


def picture(path: Path) -> str:
    """A PNG file as a data address."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f}\u202f%"


def merit(value: float, figure: Figure) -> str:
    """A value of the figure of merit."""
    return percent(value) if figure.percent else f"{value:.3f}"


def number(value: float) -> str:
    """Three digits or more, never with an exponent: 0.130, 3.45, 27.3, 1,486."""
    size = abs(value)
    return f"{value:,.{3 if size < 1 else 2 if size < 10 else 1 if size < 100 else 0}f}"


def interval(low: float, high: float, figure: Figure) -> str:
    return f"{100 * low:.1f} – {100 * high:.1f}\u202f%" if figure.percent else f"{low:.3f} – {high:.3f}"


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def memory(size: int | None) -> str:
    return f"{size / 2**20:,.0f} MiB" if size else "–"
