"""Pictures of a classifier's test images for the report."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from visionpeft.files import atomic_write
from visionpeft.metrics import Predictions
from visionpeft.runs.kinds.kind import Stages

EXAMPLES = 12
"""Pictures kept of each kind, right and wrong."""


def write_examples(folder: Path, stages: Stages, predictions: Predictions) -> None:
    """Thumbnails of test images the model gets right and wrong: the surest of each, classes taking turns."""
    confidence, guess = predictions.logits.softmax(1).max(1)
    right = predictions.correct().numpy()
    picked = [*_turns(predictions, confidence.numpy(), right), *_turns(predictions, confidence.numpy(), ~right)]
    described = []
    for number in picked:
        name = f"examples/{number:05d}.png"
        picture = stages.data.table.picture(stages.data.split.test[number])
        atomic_write(folder / name, _png(picture))
        described.append(
            {
                "file": name,
                "truth": int(predictions.labels[number]),
                "guess": int(guess[number]),
                "confidence": float(confidence[number]),
            }
        )
    content = {"classes": list(stages.data.classes), "examples": described}
    atomic_write(folder / "examples.json", json.dumps(content, indent=1))


def _turns(predictions: Predictions, confidence: np.ndarray, mask: np.ndarray) -> list[int]:
    """The surest image of each class, then the second surest of each, up to :data:`EXAMPLES`."""
    order = sorted(np.flatnonzero(mask).tolist(), key=lambda number: -confidence[number])
    seen: dict[int, int] = {}
    ranked = []
    for number in order:
        label = int(predictions.labels[number])
        seen[label] = seen.get(label, 0) + 1
        ranked.append((seen[label], number))
    return [number for _, number in sorted(ranked)[:EXAMPLES]]


def _png(picture: np.ndarray) -> bytes:
    image = Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
    image.thumbnail((96, 96))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
