"""Pictures of segmented cases for the report: the best, the median and the worst, with truth and prediction."""

from __future__ import annotations

import io
import json
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


def write_overlays(folder: Path, stages: Stages, cases: Tensor, scores: Scores) -> None:
    """Write ``examples/<role>-<slice>-{image,truth,prediction}.png`` and ``examples.json``.

    Masks are grey pictures whose values are class numbers. Of a volume, slices along its last axis are kept.
    """
    dice, whole = scores.primary(), stages.data.ordered("test").dataset
    described = []
    for role, place in zip(ROLES, _chosen(dice), strict=True):
        image, mask, index = whole[int(cases[place])]
        guess, key = _prediction(stages, image), stages.data.table.keys[index]
        image, mask = image[0].numpy(), mask[0].numpy()
        slices = [_write(folder, f"{role}-{z:03d}", *_planes(image, mask, guess, z)) for z in _slices(mask, guess)]
        described.append({"role": role, "key": key, "dice": float(dice[place]), "slices": slices})
    content = {"classes": list(stages.data.classes), "cases": described}
    atomic_write(folder / "examples.json", json.dumps(content, indent=1))


def _chosen(dice: Tensor) -> list[int]:
    """Positions of the best, the median and the worst case."""
    order = dice.nan_to_num(0).argsort().tolist()
    return [order[-1], order[len(order) // 2], order[0]]


def _prediction(stages: Stages, image: Tensor) -> np.ndarray:
    task: Any = stages.task
    return task.predict_case(image)[0].argmax(0).numpy()


def _slices(mask: np.ndarray, guess: np.ndarray) -> list[int]:
    """Positions along the last axis; a picture counts as a single slice."""
    if mask.ndim == 2:
        return [0]
    occupied = np.flatnonzero(((mask > 0) | (guess > 0)).any((0, 1)))
    first, last = (occupied[0], occupied[-1]) if len(occupied) else (0, mask.shape[-1] - 1)
    return sorted(set(np.linspace(first, last, min(MOST_SLICES, last - first + 1)).round().astype(int).tolist()))


def _planes(image: np.ndarray, mask: np.ndarray, guess: np.ndarray, z: int) -> tuple[np.ndarray, ...]:
    """Image ``(H, W, C)`` as uint8, truth and prediction ``(H, W)``; in volumes the second axis rises."""
    if mask.ndim == 2:
        return _visible(image, image), mask, guess
    return tuple(np.rot90(plane) for plane in (_visible(image[..., z], image), mask[..., z], guess[..., z]))


def _visible(plane: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``(C, H, W)`` normalised values to ``(H, W, 1 or 3)``, stretched over the case's central 98 %."""
    channels = plane if len(plane) == 3 else plane[:1]
    low, high = np.percentile(whole, (1, 99))
    scaled = np.clip((channels - low) / max(high - low, 1e-6), 0, 1)
    return (255 * scaled).astype(np.uint8).transpose(1, 2, 0)


def _write(folder: Path, name: str, image: np.ndarray, truth: np.ndarray, guess: np.ndarray) -> dict[str, str]:
    planes = {"image": image, "truth": truth.astype(np.uint8), "prediction": guess.astype(np.uint8)}
    files = {kind: f"examples/{name}-{kind}.png" for kind in planes}
    for kind, plane in planes.items():
        atomic_write(folder / files[kind], _png(plane))
    return files


def _png(plane: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(plane.squeeze(-1) if plane.shape[-1] == 1 else plane).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
