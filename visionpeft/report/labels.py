"""Names beside the points of a plot, each where it covers least of what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Box = tuple[float, float, float, float]  # left, bottom, right, top, in points of the figure
_GAP = 7.0  # points from a marker's middle to its name
_WIDE = 0.56  # of a letter, in font sizes


@dataclass(frozen=True)
class Label:
    """A text for the point ``(x, y)`` in data coordinates; ``anchored`` ones stand right of and above it."""

    text: str
    x: float
    y: float
    anchored: bool = False


def write_labels(figure: Any, axis: Any, labels: Sequence[Label], covered: Sequence[Any], size: float = 9) -> None:
    """Write ``labels``, trying a dozen places around each point.

    Args:
        covered: ``(x, low, high)`` of error bars in data coordinates, which a name should not lie on.
        size: of the font, in points.
    """
    figure.draw_without_rendering()  # the layout must stand before places are measured
    scale = 72 / figure.dpi
    frame = tuple(scale * side for side in axis.get_window_extent().extents)

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = axis.transData.transform((x, y))
        return scale * across, scale * up

    taken = [_around(*place(label.x, label.y)) for label in labels if not label.anchored]
    ends = [(place(x, low), place(x, high)) for x, low, high in covered]
    taken += [(across - 1, bottom, across + 1, top) for (across, bottom), (_, top) in ends]
    for label in sorted(labels, key=lambda label: (not label.anchored, -label.y)):
        x, y = place(label.x, label.y)
        width, height = _WIDE * size * len(label.text), 1.15 * size
        shifts = [(3.0, 2.0)] if label.anchored else _shifts(width, height)
        boxes = [(x + dx, y + dy, x + dx + width, y + dy + height) for dx, dy in shifts]
        costs = [sum(_overlap(box, other) for other in taken) + 4 * _outside(box, frame) for box in boxes]
        best = costs.index(min(costs))
        taken.append(boxes[best])
        note = axis.annotate(
            label.text, (label.x, label.y), xytext=shifts[best], textcoords="offset points", fontsize=size
        )
        note.set_in_layout(False)


def _shifts(width: float, height: float) -> list[tuple[float, float]]:
    """From a point to the lower left corner of its name, the places one likes most first."""
    left, right, level = -_GAP - width, _GAP, -height / 2 + 1
    beside = [(side, level + lines * height) for lines in (0, 1, -1, 2, -2) for side in (right, left)]
    return [*beside, (-width / 2, _GAP), (-width / 2, -_GAP - height)]


def _around(x: float, y: float, reach: float = 4.5) -> Box:
    return x - reach, y - reach, x + reach, y + reach


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide * high if wide > 0 and high > 0 else 0.0


def _outside(box: Box, frame: Any) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)
