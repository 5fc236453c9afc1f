"""Predictions on disk: logits and labels as safetensors."""

from __future__ import annotations

from pathlib import Path

import torch

from visionpeft.errors import UserError
from visionpeft.metrics import Predictions
from visionpeft.runs.trial import read_weights, write_weights


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Save ``logits (images, classes)`` and ``labels (images,)``."""
    write_weights(path, {"logits": predictions.logits.float(), "labels": predictions.labels})


def read_predictions(path: Path) -> Predictions:
    """Read what :func:`write_predictions` wrote.

    Raises:
        UserError: the file is missing or damaged.
    """
    state = read_weights(path)
    if state.keys() != {"logits", "labels"}:
        raise UserError(f"{path} holds {', '.join(state)}, not logits and labels")
    return Predictions(state["logits"], state["labels"].to(torch.int64))
