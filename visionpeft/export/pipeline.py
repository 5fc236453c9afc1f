"""A pipeline folder with the merged denoiser, which plain ``diffusers.DiffusionPipeline.from_pretrained`` loads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from visionpeft.backbones.pipelines import Pipeline, open_pipeline
from visionpeft.backbones.pipelines.quiet import quiet
from visionpeft.errors import OptionError, StateError, UserError
from visionpeft.export.merged import merged_state, plain_network, why_not_mergeable
from visionpeft.export.parity import Parity, ParityError
from visionpeft.recipe import Recipe
from visionpeft.runs.kinds import Stages
from visionpeft.tasks.diffuse import DiffuseTask

CAPTIONS = 2
"""Pictures drawn by both to compare them."""
MOST = 4 / 255
"""Largest difference of a pixel allowed: rounding, carried through every step of drawing."""


def write_pipeline(path: Path, stages: Stages, recipe: Recipe) -> Parity:
    """Save the pipeline with the adapter folded in, load it as a stranger would, and draw with both.

    Args:
        path: the folder to make.
        stages: adapted and trained.
        recipe: that of the entry.

    Raises:
        UserError: the folder exists, the run is no diffusion, or its adapter cannot be merged.
        ParityError: the folder draws other pictures; nothing is left at ``path``.
    """
    task = stages.task
    if not isinstance(task, DiffuseTask):
        raise OptionError(f"--to pipeline: a pipeline is made of diffusion runs, this one is {recipe.task.name}")  # pyright: ignore[reportAttributeAccessIssue]
    if reason := why_not_mergeable(recipe):
        raise StateError(reason)
    if path.exists():
        raise UserError(f"{path} exists already: choose another --output")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
        folder = Path(temporary) / "pipeline"
        save_merged(folder, task.pipeline, plain_network(recipe, stages))
        parity = _compared(task, open_pipeline(folder))
        folder.rename(path)
    return parity


def save_merged(folder: Path, pipeline: Pipeline, plain: nn.Module) -> None:
    """Write the pipeline's folder (safetensors) with the merged weights of its denoiser, which stays adapted.

    Args:
        folder: to make.
        pipeline: with its denoiser adapted.
        plain: a denoiser of the same architecture, to be filled.
    """
    plain.load_state_dict(merged_state(pipeline.denoiser))
    with _holding(pipeline, plain), quiet():
        pipeline.pipe.save_pretrained(folder, safe_serialization=True)


@contextmanager
def _holding(pipeline: Pipeline, denoiser: nn.Module) -> Iterator[None]:
    """Context in which the pipeline has another denoiser."""
    own, component = pipeline.denoiser, pipeline.family.component
    setattr(pipeline.pipe, component, denoiser)
    try:
        yield
    finally:
        setattr(pipeline.pipe, component, own)


def _compared(task: DiffuseTask, saved: Pipeline) -> Parity:
    """Draw the same captions with the same seeds by both."""
    captions = list(dict.fromkeys(task.captions))[:CAPTIONS] or [""] * CAPTIONS
    seeds = list(range(len(captions)))
    wanted = task.sample(captions, seeds).int()
    with torch.no_grad():
        found = saved.family.sample(
            saved.pipe, captions, seeds=seeds, steps=task.options.steps, guidance=task.options.guidance, size=task.size
        )
    difference = (wanted - found.cpu().int()).abs().max().item()
    note = f"the pipeline draws {len(captions)} pictures whose pixels differ by at most {difference} of 255"
    parity = Parity(len(captions), difference / 255, difference / 255, 1.0, note=note, output="pixels")
    if difference / 255 > MOST:
        raise ParityError(f"the pipeline's folder draws other pictures than the adapted model: {note}")
    return parity
