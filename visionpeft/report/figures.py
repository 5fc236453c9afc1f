"""The plots, as SVG that takes its text colour from the page and so fits light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from visionpeft.report.content import Content
from visionpeft.runs.result import Row

PALETTE = ("#4c6ef5", "#e8743b", "#1f9e89", "#c2417c", "#9566c9", "#b58900", "#3c8dbc", "#7f8c8d")
"""The main entry has the first colour; they read on white and on near-black."""
_INK, _GRID = "#010203", "#010204"  # replaced by the page's own colours


def colours(content: Content) -> dict[str, str]:
    """Label → colour, the same in every plot."""
    labels = [row.label for row in content.trained_rows]
    labels.sort(key=lambda label: label != content.result.main.label)
    return {label: PALETTE[min(i, len(PALETTE) - 1)] for i, label in enumerate(labels)}


def learning_curves(content: Content) -> str:
    """Training loss and validated figure over steps: a line an entry, its seeds behind it. Empty without points."""
    curves, scale = ("train/loss", f"val/{content.figure.key}"), _scale(content)
    labels = [row.label for row in content.trained_rows]
    if not any(steps for label in labels for key in curves for steps, _ in content.histories(label, key)):
        return ""
    with _figure(2, "curves") as (figure, axes):
        _curves(axes[0], content, curves[0], "training loss", smooth=True)
        _curves(axes[1], content, curves[1], f"{content.figure.title} on the validation split", scale=scale)
        _units(axes[1], content)
        _legend(figure, axes[0])
        return _svg(figure)


def accuracy_over_parameters(content: Content) -> str:
    """The figure of merit against trained parameters on a logarithmic axis, with 95 % intervals."""
    palette, rows, scale = colours(content), [row for row in content.trained_rows if row.trainable], _scale(content)
    with _figure(1, "parameters") as (figure, axes):
        axis = axes[0]
        for row in rows:
            low, high = row.interval
            bars = [[scale * (row.value - low)], [scale * (high - row.value)]]
            axis.errorbar(
                row.trainable, scale * row.value, bars, fmt="o", ms=7, lw=1.6, capsize=0, color=palette[row.label]
            )
            axis.annotate(
                row.label, (row.trainable, scale * row.value), xytext=(9, 3), textcoords="offset points", fontsize=9
            )
        for row in content.result.rows:
            if not row.trainable:
                axis.axhline(scale * row.value, color=_INK, lw=1, ls=(0, (2, 3)), alpha=0.6)
                place = (0.01, scale * row.value)
                axis.annotate(row.label, place, xycoords=axis.get_yaxis_transform(), va="bottom", fontsize=8)
        axis.set(xscale="log", xlabel="trained parameters", ylabel=f"{content.figure.title} on the test split")
        axis.margins(x=0.25, y=0.15)
        _units(axis, content)
        return _svg(figure)


def elbow(content: Content) -> str:
    """The figure of merit over the swept values: the mean with its interval, and every seed as a dot."""
    key = next(iter(content.recipe.sweep))
    rows = [row for row in content.trained_rows if row.swept is not None]
    scale = _scale(content)
    with _figure(1, "elbow") as (figure, axes):
        axis, places = axes[0], list(range(len(rows)))
        low, high = ([scale * row.interval[i] for row in rows] for i in (0, 1))
        axis.fill_between(places, low, high, color=PALETTE[0], alpha=0.15, lw=0)
        axis.plot(
            places, [scale * row.value for row in rows], "-o", color=PALETTE[0], lw=2, ms=6, label="mean and 95 %"
        )
        for place, row in zip(places, rows, strict=True):
            dots = [scale * value for value in row.by_seed.values()]
            axis.plot([place] * len(dots), dots, ".", color=_INK, alpha=0.55, ms=5)
        axis.set_xticks(places, [f"{row.swept}\n{_short(row)}" for row in rows])
        axis.set(xlabel=f"{key}  (trained parameters below)", ylabel=f"{content.figure.title} on the test split")
        _units(axis, content)
        return _svg(figure)


def _scale(content: Content) -> float:
    return 100 if content.figure.percent else 1


def _units(axis: Any, content: Content) -> None:
    axis.yaxis.set_major_formatter("{x:g} %" if content.figure.percent else "{x:.2f}")


def _short(row: Row) -> str:
    return f"{row.trainable / 1e6:.2f} M" if row.trainable >= 1e6 else f"{row.trainable / 1e3:.1f} k"


def _curves(axis: Any, content: Content, figure: str, title: str, scale: float = 1, smooth: bool = False) -> None:
    for label, colour in colours(content).items():
        lines = [(steps, [scale * v for v in values]) for steps, values in content.histories(label, figure) if steps]
        if smooth:
            lines = [(steps, _smoothed(values)) for steps, values in lines]
        front = label == content.result.main.label
        for steps, values in lines if len(lines) > 1 else []:
            axis.plot(steps, values, color=colour, lw=0.8, alpha=0.3)
        if lines:
            steps = lines[0][0]
            mean = [fmean(values) for values in zip(*(values for _, values in lines), strict=False)]
            axis.plot(steps[: len(mean)], mean, color=colour, lw=2.2 if front else 1.6, label=label, zorder=3 + front)
    axis.set(title=title, xlabel="step")


def _smoothed(values: list[float], keep: float = 0.6) -> list[float]:
    """Exponential mean; the loss of single batches hides the course."""
    found: list[float] = []
    for value in values:
        found.append(value if not found else keep * found[-1] + (1 - keep) * value)
    return found


def _legend(figure: Any, axis: Any) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False, fontsize=9)


@contextmanager
def _figure(columns: int, salt: str) -> Iterator[tuple[Any, Any]]:
    """A figure without a window, in the report's style; ``salt`` keeps the SVGs' ids apart."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), _INK),
        "grid.color": _GRID,
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
        figure = Figure(figsize=(4.9 * columns if columns > 1 else 7.0, 3.5), layout="constrained")
        yield figure, figure.subplots(1, columns, squeeze=False)[0]


def _svg(figure: Any) -> str:
    """The figure as inline SVG without sizes, so that the page scales it, and without matplotlib's metadata."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor").replace(_GRID, "var(--line)")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 role="img"', text, count=1)
