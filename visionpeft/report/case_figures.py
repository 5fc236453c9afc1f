"""Plots of single cases: how Dice spreads over them, and how it goes with their volume."""

from __future__ import annotations

from typing import Any

import numpy as np

from visionpeft.metrics.scores import TERTILES
from visionpeft.report.case_scores import CaseTable
from visionpeft.report.content import Content
from visionpeft.report.drawing import INK, drawn, log_ticks, svg, units
from visionpeft.report.families import FEW, Mark, marks

MOST_POINTS = 3000
"""Beyond this a plot's points become a picture inside the SVG, which keeps the page small."""
_SPREAD = 0.26  # of the points of a row, in rows


def dice_distribution(content: Content, tables: dict[str, CaseTable]) -> str:
    """A row an entry: every case as a dot (mean of the seeds), quartiles as a box, the mean as a diamond."""
    palette, labels = marks(content), [*tables]
    crowded = sum(table.dice.shape[1] for table in tables.values()) > MOST_POINTS
    with drawn("distribution", height=0.95 + 0.36 * len(labels)) as (figure, (axis,)):
        for row, label in enumerate(labels):
            _strip(axis, row, tables[label].dice.mean(0), palette[label].colour, crowded)
        axis.set_yticks(range(len(labels)), labels)
        axis.set_ylim(len(labels) - 0.4, -0.6)
        axis.grid(visible=False, axis="y")
        axis.set(xlabel=f"{content.figure.title} of a test case")
        axis.set_xlim(right=min(1.02, axis.get_xlim()[1]))
        units(axis.xaxis, content)
        return svg(figure)


def dice_over_volume(content: Content, tables: dict[str, CaseTable]) -> str:
    """Cases of the main entry over their volume, with the means of its tertiles; empty if no case has foreground.

    Of few entries the others' tertile means follow as thin lines.
    """
    main = content.result.main.label
    table, palette = tables[main], marks(content)
    seen = table.tertile >= 0
    if not seen.any():
        return ""
    with drawn("volume", height=3.8) as (figure, (axis,)):
        points = {"color": palette[main].colour, "ms": 4.5, "alpha": 0.45, "mew": 0, "zorder": 2}
        crowded = int(seen.sum()) > MOST_POINTS
        axis.plot(table.volume[seen], table.dice.mean(0)[seen], "o", rasterized=crowded, **points)
        for label, other in tables.items() if len(tables) <= FEW else []:
            if label != main:
                _means(axis, other, palette[label], label)
        _means(axis, table, palette[main], main, front=True)
        axis.set(xlabel=f"true foreground of a case ({table.unit})", ylabel=content.figure.title)
        log_ticks(axis.xaxis)
        units(axis.yaxis, content)
        if len(axis.get_legend_handles_labels()[0]) > 1:
            figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
        return svg(figure)


def _strip(axis: Any, row: int, dice: np.ndarray, colour: str, crowded: bool) -> None:
    """Dots beside one another in the order of the cases, so that a page is drawn the same twice."""
    away = row + _SPREAD * np.sin(2.4 * np.arange(len(dice)))
    axis.plot(dice, away, "o", ms=3.4, mew=0, color=colour, alpha=0.4, zorder=2, rasterized=crowded)
    axis.boxplot(
        [dice],
        positions=[row],
        orientation="horizontal",
        widths=0.5,
        showfliers=False,
        boxprops={"color": colour, "lw": 1.3},
        medianprops={"color": colour, "lw": 2.2},
        whiskerprops={"color": colour, "lw": 1},
        capprops={"lw": 0},
    )
    axis.plot(dice.mean(), row, "D", ms=5, color=colour, mec=INK, mew=0.7, zorder=5)


def _means(axis: Any, table: CaseTable, mark: Mark, label: str, front: bool = False) -> None:
    """A tertile's mean over the volumes it spans, joined to the next; the front one with its interval."""
    spans = [np.sort(table.volume[table.tertile == place]) for place in range(len(TERTILES))]
    means = table.by_tertile()
    known = [(span, means[name]) for span, name in zip(spans, TERTILES, strict=True) if name in means]
    middles = [np.exp(np.log(span).mean()) for span, _ in known]
    style = {"lw": 2.2, "ms": 6} if front else {"lw": 1.2, "ms": 4}
    axis.plot(middles, [one.value for _, one in known], "-o", color=mark.colour, label=label, zorder=6, **style)
    for span, one in known if front else []:
        axis.fill_between(span[[0, -1]], one.low, one.high, color=mark.colour, alpha=0.18, lw=0, zorder=1)
