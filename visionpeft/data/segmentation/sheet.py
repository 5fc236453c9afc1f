"""A sheet of pictures: cases of each part with the outlines of their masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from visionpeft.data.segmentation.cases import Case, CaseTable
from visionpeft.files import atomic_write

COLUMNS = 6
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#42d4f4")


def write_sheet(path: str | Path, table: CaseTable, indices: Sequence[int], limit: int = 18) -> Path:
    """Draw up to ``limit`` of the cases at ``indices``, evenly chosen, as a PNG; volumes by their fullest slice."""
    chosen = [indices[i] for i in np.unique(np.linspace(0, len(indices) - 1, min(limit, len(indices))).astype(int))]
    rows = -(-len(chosen) // COLUMNS)
    figure = Figure(figsize=(2.2 * COLUMNS, 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place in range(rows * COLUMNS):
        axes = figure.add_subplot(rows, COLUMNS, place + 1)
        axes.axis("off")
        if place < len(chosen):
            _draw(axes, table.case(chosen[place]), str(table.split[chosen[place]]), len(table.classes))
    return atomic_write(path, lambda target: figure.savefig(target, dpi=110, format="png"))


def _draw(axes: Axes, case: Case, part: str, classes: int) -> None:
    image, mask = flat(case)
    axes.imshow(image, cmap="gray")
    for label in range(1, classes):
        if (mask == label).any() and not (mask == label).all():
            axes.contour(mask == label, levels=[0.5], colors=[COLOURS[(label - 1) % len(COLOURS)]], linewidths=1)
    axes.set_title(f"{part}: {case.key[-28:]}", fontsize=7)


def flat(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The picture ``(H, W)`` or ``(H, W, 3)`` in 0 … 1 and its mask; of a volume, the slice that shows most objects."""
    image, mask = case.image, case.mask
    if mask.ndim == 3:
        fullest = int((mask > 0).sum((0, 1)).argmax()) if mask.any() else mask.shape[2] // 2
        image, mask = image[..., fullest].transpose(0, 2, 1)[:, ::-1], mask[..., fullest].T[::-1]
    low, high = np.percentile(image, (0.5, 99.5))
    scaled = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    return (scaled.transpose(1, 2, 0) if len(scaled) == 3 else scaled[0]), mask
