"""What a run leaves behind of its main entry: the plan, the adapter folder, the other trained weights, examples."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from visionpeft.files import atomic_write
from visionpeft.metrics import Predictions
from visionpeft.recipe import Entry
from visionpeft.runs import folder as folders
from visionpeft.runs.stages import Stages, trained_state
from visionpeft.runs.trial import write_weights
from visionpeft.surgery.folder import save

EXAMPLES = 12
"""Pictures kept of each kind, right and wrong, for the report."""


def write_plan(folder: Path, entry: Entry, stages: Stages) -> None:
    """Which weights the entry adapts, by which path and why; one JSON file an entry."""
    report = stages.preparation.report
    plan = {
        "label": entry.label,
        "notes": list(stages.backbone.notes),
        "trained": list(trained_state(stages.task.model)),
        "sites": [asdict(site) for site in report.sites] if report else [],
        "refused": [list(item) for item in report.refused] if report else [],
    }
    atomic_write(folder / "plans" / f"{entry.slug}.json", json.dumps(plan, indent=1, default=str))


def write_trained(folder: Path, stages: Stages, adapted: bool) -> None:
    """``adapter/`` with all that was trained beside it, or ``trained.safetensors`` where there is no adapter."""
    if adapted:
        save(stages.task.model, folder / folders.ADAPTER)
    else:
        write_weights(folder / folders.TRAINED, trained_state(stages.task.model))


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
