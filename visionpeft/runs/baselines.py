"""Baselines that train nothing, one set of predictions a seed."""

from __future__ import annotations

from pathlib import Path

from visionpeft.backbones import head_of
from visionpeft.metrics import Predictions
from visionpeft.recipe import Recipe
from visionpeft.runs.predictions import read_predictions, write_predictions
from visionpeft.runs.stages import open_backbone, open_data
from visionpeft.tasks.baselines import nearest_centroid_predictions

TITLES = {"nearest_centroid": "nearest centroid (zero-shot)"}


def baseline_predictions(name: str, recipe: Recipe, folder: Path) -> list[Predictions]:
    """Predictions of the untouched network on the test split for each seed's training images."""
    found = []
    for seed in recipe.seeds:
        path = folder / "baselines" / name / f"seed-{seed}.safetensors"
        if not path.is_file():
            write_predictions(path, _BASELINES[name](recipe, seed))
        found.append(read_predictions(path))
    return found


def _nearest_centroid(recipe: Recipe, seed: int) -> Predictions:
    data = open_data(recipe, seed)
    model = open_backbone(recipe, len(data.classes)).model
    shots, queries = data.ordered("train"), data.test_dataloader()
    return nearest_centroid_predictions(model, head_of(model)[0], shots, queries, len(data.classes))


_BASELINES = {"nearest_centroid": _nearest_centroid}
