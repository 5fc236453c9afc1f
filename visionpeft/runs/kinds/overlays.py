"""Pictures of segmented cases for the report: the best, the median and the worst, with truth and prediction."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from visionpeft.files import atomic_write
from visionpeft.metrics.scores import Scores
from visionpeft.runs.kinds.kind import Stages

ROLES = ("best", "median", "worst")
MOST_SLICES = 24
"""Slices kept of a volume, evenly spaced over those that hold foreground."""
SIDE = {2: 640, 3: 288}
"""The longest side of a kept picture, and of a kept slice; larger ones are made smaller."""


def write_overlays(folder: Path, stages: Stages, cases: Tensor, scores: Scores) -> None:
    """Write ``examples/<role>-<slice>-{image,truth,prediction}.png`` and ``examples.json``.

    Masks are grey pictures whose values are class numbers. Of a volume, slices along its last axis are kept, their rows
    from the highest position of the second axis down; ``stretch`` is how much taller than wide a voxel of them is.
    """
    dice, whole = scores.primary(), stages.data.ordered("test").dataset
    described = []
    for role, position in zip(ROLES, _chosen(dice), strict=True):
        image, mask, index = whole[int(cases[position])]
        planes = _visible(image[0].numpy()), mask[0].numpy(), _prediction(stages, image)
        case = {
            "role": role,
            "key": stages.data.table.keys[index],
            "dice": float(dice[position]),
            "volume": float(scores.total_volume()[position]),
            "unit": scores.unit,
        }
        described.append(case | _slices(folder, role, planes, stages.data.spacing(index)))
    content = {"classes": list(stages.data.classes), "cases": described}
    atomic_write(folder / "examples.json", json.dumps(content, indent=1))


def _chosen(dice: Tensor) -> list[int]:
    """Positions of the best, the median and the worst case."""
    order = dice.nan_to_num(0).argsort().tolist()
    return [order[-1], order[len(order) // 2], order[0]]


def _prediction(stages: Stages, image: Tensor) -> np.ndarray:
    task: Any = stages.task
    return task.predict_case(image)[0].argmax(0).numpy()


def _slices(folder: Path, role: str, case: tuple[np.ndarray, ...], spacing: Sequence[float]) -> dict[str, Any]:
    """Write the pictures of a case (image, mask, prediction) and describe them."""
    mask, guess = case[1:]
    down, across = spacing[:2] if mask.ndim == 2 else (spacing[1], spacing[0])
    written = [{"place": z, **_write(folder, f"{role}-{z:03d}", case, z)} for z in _places(mask, guess)]
    return {"depth": mask.shape[2] if mask.ndim == 3 else 1, "stretch": down / across, "slices": written}


def _places(mask: np.ndarray, guess: np.ndarray) -> list[int]:
    """Positions along the last axis; a picture counts as a single slice."""
    if mask.ndim == 2:
        return [0]
    occupied = np.flatnonzero(((mask > 0) | (guess > 0)).any((0, 1)))
    first, last = (occupied[0], occupied[-1]) if len(occupied) else (0, mask.shape[-1] - 1)
    return sorted(set(np.linspace(first, last, min(MOST_SLICES, last - first + 1)).round().astype(int).tolist()))


def _visible(image: np.ndarray) -> np.ndarray:
    """``(C, *spatial)`` normalised values to uint8 ``(*spatial, 1 or 3)``, stretched over their central 99 %.

    What is exactly zero everywhere, as the air that z-scores leave out, is black.
    """
    channels = image if len(image) == 3 else image[:1]
    seen = (channels != 0).any(0)
    low, high = np.percentile(channels[:, seen] if seen.any() else channels, (0.5, 99.5))
    scaled = np.where(seen, np.clip((channels - low) / max(high - low, 1e-6), 0, 1), 0)
    return np.moveaxis((255 * scaled).astype(np.uint8), 0, -1)


def _write(folder: Path, name: str, case: tuple[np.ndarray, ...], z: int) -> dict[str, str]:
    """Write the slice ``z`` of image, mask and prediction (a picture: all of it), and name the files."""
    files = {kind: f"examples/{name}-{kind}.png" for kind in ("image", "truth", "prediction")}
    flat = case[1].ndim == 2
    for (kind, file), values in zip(files.items(), case, strict=True):
        plane = values if flat else np.rot90(values[:, :, z])
        how = Image.Resampling.BOX if kind == "image" else Image.Resampling.NEAREST
        atomic_write(folder / file, _png(plane.astype(np.uint8), SIDE[case[1].ndim], how))
    return files


def _png(plane: np.ndarray, side: int, how: Image.Resampling) -> bytes:
    picture = Image.fromarray(plane[..., 0] if plane.shape[2:] == (1,) else plane)
    picture.thumbnail((side, side), how, reducing_gap=None)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
