"""The adapter of a diffusion run as a file of another tool, with a model card: ``visionpeft export RUN --to …``."""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from visionpeft.errors import OptionError
from visionpeft.export.exchange.card import CARD, Sample, model_card
from visionpeft.export.exchange.write import Exchanged, write
from visionpeft.export.parity import Parity
from visionpeft.recipe import Recipe
from visionpeft.runs.kinds import Stages
from visionpeft.surgery.about import about
from visionpeft.tasks.diffuse import DiffuseTask

PICTURES = 4
"""Drawn for the model card, one a caption."""


def write_run(
    form: str,
    path: Path,
    stages: Stages,
    recipe: Recipe,
    *,
    rank: int | None = None,
    energy: float | None = None,
    drop: bool = False,
    licence: str | None = None,
) -> Parity:
    """Write the adapter of a run for another tool, checked by it, with a model card that shows what it draws.

    A ``README.md`` that is there already is left alone.

    Args:
        form: a format of :func:`visionpeft.export.exchange.write`; so are ``rank``, ``energy`` and ``drop``.
        path: the file or folder.
        stages: adapted and trained.
        recipe: that of the entry.
        licence: of the base.

    Raises:
        UserError: the run is no diffusion, has not one adapter, or as for :func:`visionpeft.export.exchange.write`.
        ParityError: the tool computes something else; nothing is left at ``path``.
    """
    task = stages.task
    if not isinstance(task, DiffuseTask):
        raise OptionError(f"--to {form}: it is for diffusion runs, this one is {recipe.task.name}")  # pyright: ignore[reportAttributeAccessIssue]
    if len(recipe.adapters) != 1:
        raise OptionError(f"--to {form}: it takes a run with one adapter, this one has {len(recipe.adapters)}")
    denoiser, component, (name,) = task.pipeline.denoiser, task.pipeline.family.component, recipe.adapters
    says = {"recipe": recipe.name, "base": str(recipe.backbone.pretrained)}
    says |= {"base_licence": licence} if licence else {}
    done = write(
        form,
        path,
        denoiser,
        component=component,
        name=name,
        rank=rank,
        energy=energy,
        metadata=says,
        drop=drop,
    )
    folder = path if path.is_dir() else path.parent
    if not (folder / CARD).exists():
        told = {**about(denoiser, name, says), "error": done.error}
        _write_card(folder, form, path, recipe.name, told, component, task)
    return _parity(done)


def _write_card(folder: Path, form: str, path: Path, title: str, says: dict, component: str, task: DiffuseTask) -> None:
    prompts = list(dict.fromkeys(task.captions))[:PICTURES]
    drawn = task.sample(prompts, list(range(len(prompts)))) if prompts else ()
    file = None if path.is_dir() else path.name
    with tempfile.TemporaryDirectory() as temporary:
        samples = [Sample(Path(temporary) / f"{n}.png", prompt) for n, prompt in enumerate(prompts)]
        for sample, picture in zip(samples, drawn, strict=True):
            Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()).save(sample.picture)
        model_card(folder, form, title=title, says=says, component=component, file=file, samples=samples)


def _parity(done: Exchanged) -> Parity:
    ranks = [fit.rank for fit in done.layers if fit.rank is not None]
    kept = f", ranks {min(ranks)} to {max(ranks)}" if ranks else ""
    dropped = "".join(f"; left out {name}: {reason}" for name, reason in done.dropped.items())
    note = f"{len(done.layers)} layers{kept}, relative error {done.error:.1e}; loaded with {done.match.tool}{dropped}"
    relative = done.match.difference / max(done.match.effect, 1e-12)
    return Parity(1, done.match.difference, relative, 1.0, note=note, output="predictions")
