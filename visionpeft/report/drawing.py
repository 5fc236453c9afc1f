"""What every plot shares: the style, the ticks of the figure of merit, and SVG that fits light and dark pages."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from visionpeft.report.content import Content

INK, GRID = "#010203", "#010204"
"""Stand for the page's own colours in a plot and are replaced by them in the SVG."""
_ONE, _EACH = 7.0, 4.9  # inches: the width of a single plot, and of one of several in a row


@contextmanager
def drawn(salt: str, columns: int = 1, height: float = 3.5) -> Iterator[tuple[Any, Any]]:
    """A figure without a window and its row of axes; ``salt`` keeps the ids of a page's SVGs apart.

    Args:
        columns: axes side by side.
        height: in inches, of which a single plot is 7 wide.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), INK),
        "grid.color": GRID,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "ytick.left": False,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "font.size": 10,
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(_ONE if columns == 1 else _EACH * columns, height), layout="constrained")
        yield figure, figure.subplots(1, columns, squeeze=False)[0]


def svg(figure: Any) -> str:
    """The figure as inline SVG without sizes, so that the page scales it, and without matplotlib's metadata."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}, dpi=144)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor").replace(GRID, "var(--line)")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 role="img"', text, count=1)


def scale(content: Content) -> float:
    """What the figure of merit is multiplied with to be drawn."""
    return 100 if content.figure.percent else 1


def log_ticks(axis: Any) -> None:
    """Make an ``XAxis`` logarithmic with ticks that people read: 500, 2 k, 1 M."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.axes.set_xscale("log")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_formatter(NullFormatter())


def short(value: float) -> str:
    """A size in thousands or millions where it has them, to three digits."""
    unit, word = next(((u, w) for u, w in ((1e6, " M"), (1e3, " k")) if value >= u), (1, ""))
    return f"{float(f'{value / unit:.3g}'):g}{word}"


def units(axis: Any, content: Content) -> None:
    """Write the ticks of an ``XAxis`` or ``YAxis`` as the figure of merit is written."""
    axis.set_major_formatter("{x:g} %" if content.figure.percent else "{x:.2f}")
