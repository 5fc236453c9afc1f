"""What a run leaves behind of its main entry: the plan, the adapter folder, the other trained weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from visionpeft.data.preparation import Preparation
from visionpeft.files import atomic_write
from visionpeft.recipe import Entry, Recipe
from visionpeft.runs import folder as folders
from visionpeft.runs.kinds import Stages
from visionpeft.runs.stages import trained_state
from visionpeft.runs.weights import write_weights
from visionpeft.surgery.folder import save


def write_plan(folder: Path, entry: Entry, stages: Stages) -> None:
    """Which weights the entry adapts, by which path and why; one JSON file an entry."""
    plan = {
        "label": entry.label,
        "notes": stages.notes,
        "trained": list(trained_state(stages.task.model)),
        "sites": [asdict(site) for report in stages.plan for site in report.sites],
        "refused": [list(item) for report in stages.plan for item in report.refused],
    }
    atomic_write(folder / "plans" / f"{entry.slug}.json", json.dumps(plan, indent=1, default=str))


def write_preparation(folder: Path, entry: Entry, stages: Stages) -> None:
    """How the images of an entry are prepared, so that the folder can predict without the data set."""
    content = json.dumps(Preparation.of(stages.data).to_json(), indent=1)
    atomic_write(folder / folders.PREPARED / f"{entry.slug}.json", content)


def read_preparation(folder: Path, entry: Entry) -> Preparation | None:
    """What :func:`write_preparation` left, or None in a run that was made before it was kept.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / folders.PREPARED / f"{entry.slug}.json"
    return Preparation.from_json(folders.read_json(path), str(path)) if path.exists() else None


def write_trained(folder: Path, stages: Stages, recipe: Recipe) -> None:
    """``adapter/`` (and ``adapter-2/``, …) with all that was trained beside it, else ``trained.safetensors``."""
    for name in recipe.adapters:
        save(stages.task.model, folder / name.replace("default", folders.ADAPTER), name)
    if not recipe.adapters:
        write_weights(folder / folders.TRAINED, trained_state(stages.task.model))
