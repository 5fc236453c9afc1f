"""The plots of every task: learning curves, the figure of merit over parameters, and over the values of a sweep."""

from __future__ import annotations

from itertools import cycle
from statistics import fmean
from typing import Any

from visionpeft.report.content import Content
from visionpeft.report.drawing import INK, drawn, log_ticks, scale, short, svg, units
from visionpeft.report.families import FEW, PALETTE, families, marks, size_of
from visionpeft.report.labels import Label, write_labels
from visionpeft.runs.result import Row

_FEW_POINTS = 4
"""Below so many values a curve shows each as a dot; a single one would not be seen otherwise."""


def learning_curves(content: Content) -> str:
    """Training loss and validated figure over steps: a line an entry, its seeds behind it. Empty without points."""
    curves, factor = ("train/loss", f"val/{content.figure.key}"), scale(content)
    labels = [row.label for row in content.trained_rows]
    if not any(steps for label in labels for key in curves for steps, _ in content.histories(label, key)):
        return ""
    with drawn("curves", columns=2, height=3.5 + _legend_height(content)) as (figure, axes):
        _curves(axes[0], content, curves[0], "training loss", smooth=True)
        _curves(axes[1], content, curves[1], f"{content.figure.title} on the validation split", factor=factor)
        units(axes[1].yaxis, content)
        _legend(figure, content, points=False)
        return svg(figure)


def merit_over_parameters(content: Content) -> str:
    """The figure of merit against trained parameters on a logarithmic axis, with 95 % intervals.

    The ranks of a method are joined by a line. What trains nothing is a dashed line across.
    """
    many, factor = len(content.trained_rows) > FEW, scale(content)
    with drawn("parameters", height=(5.0 if many else 3.5) + _legend_height(content)) as (figure, (axis,)):
        _families(axis, content, many)
        axis.set(xlabel="trained parameters", ylabel=f"{content.figure.title} on the test split")
        axis.margins(x=0.08 if many else 0.16, y=0.1)
        log_ticks(axis.xaxis)
        units(axis.yaxis, content)
        flat = [row for row in content.result.rows if not row.trainable]
        for row in flat:
            axis.axhline(factor * row.value, color=INK, lw=1, ls=(0, (2, 3)), alpha=0.6)
        if many:
            _legend(figure, content, points=True)
        figure.draw_without_rendering()
        names = [Label(row.label, axis.get_xlim()[0], factor * row.value, anchored=True) for row in flat]
        bars = [(row.trainable, *(factor * end for end in row.interval)) for row in _trained(content)]
        write_labels(figure, axis, names + _names(content, many), bars, size=8 if many else 9)
        return svg(figure)


def elbow(content: Content) -> str:
    """The figure of merit over the swept values, a line a method: means and intervals; of one, every seed too."""
    key, factor = next(iter(content.recipe.sweep)), scale(content)
    groups: dict[str, list[Row]] = {}
    for entry in content.entries:
        if entry.swept is not None:
            groups.setdefault(entry.group, []).append(content.result.row(entry.label))
    with drawn("elbow") as (figure, (axis,)):
        for (title, rows), colour in zip(groups.items(), cycle(PALETTE)):
            _swept_line(axis, rows, factor, title, colour, alone=len(groups) == 1)
        rows = next(iter(groups.values()))
        ticks = [f"{row.swept}\n{short(row.trainable)}" if len(groups) == 1 else f"{row.swept}" for row in rows]
        axis.set_xticks(range(len(rows)), ticks)
        note = "  (trained parameters below)" if len(groups) == 1 else ""
        axis.set(xlabel=f"{key}{note}", ylabel=f"{content.figure.title} on the test split")
        units(axis.yaxis, content)
        if len(groups) > 1:
            figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
        return svg(figure)


def _swept_line(axis: Any, rows: list[Row], factor: float, title: str, colour: str, alone: bool) -> None:
    """Means of a method over the values; alone with its interval as a band and its seeds as dots."""
    places, means = list(range(len(rows))), [factor * row.value for row in rows]
    low, high = ([factor * row.interval[i] for row in rows] for i in (0, 1))
    axis.plot(places, means, "-o", color=colour, lw=2, ms=6, label=title)
    axis.fill_between(places, low, high, color=colour, alpha=0.15 if alone else 0.05, lw=0)
    for place, row in zip(places, rows, strict=True) if alone else ():
        dots = [factor * value for value in row.by_seed.values()]
        axis.plot([place] * len(dots), dots, ".", color=INK, alpha=0.55, ms=5)


def _trained(content: Content) -> list[Row]:
    return [row for row in content.trained_rows if row.trainable]


def _families(axis: Any, content: Content, many: bool) -> None:
    """Points with their intervals, the ranks of a method joined."""
    palette, factor = marks(content), scale(content)
    for family in families(content):
        rows = [content.result.row(label) for label in family.labels]
        line = family.colour if many else INK
        axis.plot(
            [row.trainable for row in rows],
            [factor * row.value for row in rows],
            color=line,
            ls=family.line,
            lw=1.4 if many else 1,
            alpha=0.75 if many else 0.35,
        )
        for row in rows:
            (low, high), colour = row.interval, palette[row.label].colour
            bars = [[factor * (row.value - low)], [factor * (high - row.value)]]
            faint = 0.45 if many else 1
            axis.errorbar(row.trainable, factor * row.value, bars, fmt="none", ecolor=colour, lw=1.4, alpha=faint)
            axis.plot(row.trainable, factor * row.value, palette[row.label].marker, color=colour, ms=6.5, zorder=4)


def _names(content: Content, many: bool) -> list[Label]:
    """Every entry's label; of many entries the ranks, since the legend names their families."""
    factor = scale(content)
    if not many:
        return [Label(row.label, row.trainable, factor * row.value) for row in _trained(content)]
    rows = [content.result.row(label) for family in families(content) if family.several for label in family.labels]
    return [Label(size_of(content, row.label), row.trainable, factor * row.value) for row in rows]


def _curves(axis: Any, content: Content, key: str, title: str, factor: float = 1, smooth: bool = False) -> None:
    palette = marks(content)
    for label, mark in palette.items():
        lines = [(steps, [factor * v for v in values]) for steps, values in content.histories(label, key) if steps]
        if smooth:
            lines = [(steps, _smoothed(values)) for steps, values in lines]
        front = label == content.result.main.label
        for steps, values in lines if len(lines) > 1 and len(palette) <= FEW else []:
            axis.plot(steps, values, color=mark.colour, lw=0.8, alpha=0.3)
        if lines:
            steps = lines[0][0]
            mean = [fmean(values) for values in zip(*(values for _, values in lines), strict=False)]
            style = {
                "color": mark.colour,
                "ls": mark.line,
                "alpha": mark.strength,
                "lw": 2.2 if front else 1.5,
                "zorder": 3 + front,
            }
            axis.plot(steps[: len(mean)], mean, marker="o" if len(mean) < _FEW_POINTS else "", ms=4, **style)
    axis.set(title=title, xlabel="step")


def _smoothed(values: list[float], keep: float = 0.6) -> list[float]:
    """Exponential mean; the loss of single batches hides the course."""
    found: list[float] = []
    for value in values:
        found.append(value if not found else keep * found[-1] + (1 - keep) * value)
    return found


def _legend_items(content: Content) -> dict[str, tuple[str, str, str]]:
    """Name → colour, marker and line: of entries, or of families where there are many entries."""
    rows = _trained(content)
    if len(content.trained_rows) <= FEW:
        palette = marks(content)
        return {row.label: (palette[row.label].colour, "o", "-") for row in rows}
    return {family.title: (family.colour, family.marker, family.line) for family in families(content)}


def _legend_height(content: Content) -> float:
    """Inches that the legend adds, beyond the two lines that every figure has room for."""
    return 0.19 * max(0, len(_legend_items(content)) / 4 - 2)


def _legend(figure: Any, content: Content, points: bool) -> None:
    from matplotlib.lines import Line2D

    items = _legend_items(content)
    handles = [
        Line2D([], [], color=colour, ls=line, lw=1.8, marker=marker if points else "", ms=6)
        for colour, marker, line in items.values()
    ]
    if len(items) > 1:
        columns, place = min(4, len(items)), "outside lower center"
        figure.legend(handles, [*items], loc=place, ncols=columns, frameon=False, fontsize=9)
