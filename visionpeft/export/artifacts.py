"""``visionpeft export``: one verb, a registry of formats."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visionpeft.errors import DataError, OptionError, UnknownNameError, unknown
from visionpeft.export.merged import load_plain, why_not_mergeable, write_merged
from visionpeft.export.parity import Parity
from visionpeft.export.programs import write_onnx, write_program
from visionpeft.recipe import Recipe
from visionpeft.runs import folder as folders
from visionpeft.runs.finished import OpenedRun, open_run
from visionpeft.runs.kinds import Stages, kind_of


def export_run(
    run: str | Path, form: str = "merged", output: str | Path | None = None, fold: int | None = None, **options: Any
) -> tuple[Path, Parity]:
    """Export the main entry of a finished run and check the artifact against the adapted model.

    Args:
        run: a run folder.
        form: ``merged`` (safetensors), ``program`` (``torch.export``), ``onnx``, ``bundle`` (MONAI's, a folder),
            ``open-clip`` (a folder that open_clip loads), ``pipeline`` (a folder that diffusers loads), or the adapter
            alone as ``diffusers-lora``, ``peft``, ``kohya`` or ``lycoris``.
        fold: of a cross-validation, counted from 0; default: the first.
        output: the file or folder to write; default ``<run>/model.<suffix>`` (for merged: ``merged.safetensors``).
        options: of an adapter alone: ``rank``, ``energy``, ``drop`` and ``licence``, see
            :func:`visionpeft.export.exchange.runs.write_run`.

    Raises:
        UserError: no run folder, unknown format, an output with another ending, or the adapter cannot be merged.
        ParityError: the artifact disagrees with the adapted model; it is not kept.
    """
    if form not in FORMATS:
        raise unknown("export format", form, FORMATS)
    options = {key: value for key, value in options.items() if value not in (None, False)}
    if options and form not in EXCHANGED:
        raise OptionError(f"--to {form} takes no {next(iter(options))}: that is for {', '.join(EXCHANGED)}")
    name, write = FORMATS[form]
    path, suffix = Path(output) if output is not None else Path(run) / name, Path(name).suffix
    if suffix and path.suffix != suffix:
        raise OptionError(f"--output {path}: {form} is written to a file that ends in {suffix}")
    opened = _opened(run, fold)
    images = kind_of(opened.recipe).sample(opened.stages)
    return path, write(path, opened.stages, opened.recipe, images, **options)


def _opened(run: str | Path, fold: int | None) -> OpenedRun:
    """With its data set for a real batch to compare on; without where that is out of reach."""
    try:
        return open_run(run, fold=fold)
    except (DataError, UnknownNameError):
        return open_run(run, fold=fold, needs_data=False)


def _graph(writer: Callable[[Path, torch.nn.Module, Tensor], Parity]) -> Callable[..., Parity]:
    """A graph of the merged network; of the adapted one where the method does not merge."""

    def write(path: Path, stages: Stages, recipe: Recipe, images: Tensor) -> Parity:
        kind, model = kind_of(recipe), stages.task.model
        if why_not_mergeable(recipe) is None:
            plain = path.with_name(f".{path.name}.merged.safetensors")
            try:
                write_merged(plain, stages, recipe, images)
                model = load_plain(plain, recipe, stages)
            finally:
                plain.unlink(missing_ok=True)
        return writer(path, kind.answering(stages, model), images)

    return write


def _bundle(path: Path, stages: Stages, recipe: Recipe, images: Tensor) -> Parity:
    from visionpeft.export.bundle import write_bundle

    return write_bundle(path, stages, recipe, images)


def _open_clip(path: Path, stages: Stages, recipe: Recipe, images: Tensor) -> Parity:
    from visionpeft.export.open_clip import write_run

    return write_run(path, stages, recipe, images)


def _pipeline(path: Path, stages: Stages, recipe: Recipe, images: Tensor) -> Parity:
    from visionpeft.export.pipeline import write_pipeline

    return write_pipeline(path, stages, recipe)


def _exchanged(form: str, path: Path, stages: Stages, recipe: Recipe, images: Tensor, **options: Any) -> Parity:
    from visionpeft.export.exchange.runs import write_run as write_adapter

    return write_adapter(form, path, stages, recipe, **options)


EXCHANGED = {
    "diffusers-lora": "diffusers-lora/pytorch_lora_weights.safetensors",
    "peft": "peft",
    "kohya": "kohya/lora.safetensors",
    "lycoris": "lycoris/lycoris.safetensors",
}
"""Format of an adapter alone → default file; each in a folder of its own, with its model card."""

FORMATS: dict[str, tuple[str, Callable[..., Parity]]] = {
    "merged": (folders.MERGED, write_merged),
    "program": ("model.pt2", _graph(write_program)),
    "onnx": ("model.onnx", _graph(write_onnx)),
    "bundle": ("bundle", _bundle),
    "open-clip": ("open_clip", _open_clip),
    "pipeline": ("pipeline", _pipeline),
    **{form: (name, partial(_exchanged, form)) for form, name in EXCHANGED.items()},
}
"""Format → default file name and writer."""
