"""What a run leaves behind of its main entry: the plan, the adapter folder, the other trained weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from visionpeft.files import atomic_write
from visionpeft.recipe import Entry
from visionpeft.runs import folder as folders
from visionpeft.runs.kinds import Stages
from visionpeft.runs.stages import trained_state
from visionpeft.runs.weights import write_weights
from visionpeft.surgery.folder import save


def write_plan(folder: Path, entry: Entry, stages: Stages) -> None:
    """Which weights the entry adapts, by which path and why; one JSON file an entry."""
    report = stages.plan[0] if stages.plan else None
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
