"""What a recipe with ``publish: true`` leaves in the cache, where other recipes start from it as ``run:<name>``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from visionpeft.files import atomic_write, cache_dir
from visionpeft.recipe import Recipe
from visionpeft.runs.kinds import Stages


def publish(merged: Path, stages: Stages, recipe: Recipe) -> Path:
    """Put what a run trained where ``run:<name>`` finds it, in place of an older one, and return the folder.

    Args:
        merged: weights file of the run, see :func:`visionpeft.export.merged.write_merged`.
        stages: adapted and trained.
        recipe: of the run.
    """
    folder = cache_dir() / "sources" / recipe.name
    writer = WRITERS.get(recipe.task.name)  # pyright: ignore[reportAttributeAccessIssue] (every task section has one)
    if writer is None:
        atomic_write(folder / "model.safetensors", merged.read_bytes())
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        draft, old = Path(temporary) / "new", Path(temporary) / "old"
        writer(draft, stages, recipe)
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
    return folder


def _autoencoder(folder: Path, stages: Stages, recipe: Recipe) -> None:
    from visionpeft.export.autoencoder import write_autoencoder

    write_autoencoder(folder, stages.task.model, stages.data)


def _pipeline(folder: Path, stages: Stages, recipe: Recipe) -> None:
    from visionpeft.export.pipeline import write_pipeline

    folder.mkdir()
    write_pipeline(folder / "pipeline", stages, recipe)


WRITERS: dict[str, Callable[[Path, Stages, Recipe], None]] = {"autoencode": _autoencoder, "diffuse": _pipeline}
"""Task → what writes its folder, where it is more than a file of weights."""
