"""What a sampler draws with: the base (a pipeline or a finished run), and the adapter folders that a path names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from visionpeft.backbones.pipelines import Pipeline, open_pipeline
from visionpeft.errors import AdapterFileError, OptionError, UserError
from visionpeft.recipe import load_recipe
from visionpeft.runs import folder as folders
from visionpeft.runs.finished import open_run
from visionpeft.runs.stages import open_backbone, seeded, trained_state
from visionpeft.surgery.folder import META
from visionpeft.tasks.diffuse import DiffuseTask


@dataclass(frozen=True, eq=False)
class Base:
    """An open pipeline and how it came to be.

    Attributes:
        source: as it was named.
        pipeline: open, with the adapters of a run on its denoiser.
        own: names of those adapters.
        before: what a run trained whole, as it was before: name of the weight → value.
        size, steps, guidance: of drawing where a caller gives none; None leaves them to the family.
        captions: what a run drew in testing, to try first.
    """

    source: str
    pipeline: Pipeline
    own: tuple[str, ...] = ()
    before: dict[str, Tensor] = field(default_factory=dict)
    size: int | None = None
    steps: int = 25
    guidance: float | None = None
    captions: tuple[str, ...] = ()


def open_base(source: str | Path, entry: str | None = None) -> Base:
    """Open a pipeline (a folder, ``run:NAME``, a repository of the hub), or a finished run with what it trained.

    Args:
        source: which.
        entry: of a run; default: the main one.

    Raises:
        UserError: there is none, it is not whole, or it is a run of another task.
    """
    folder = Path(source).expanduser()
    if (folder / folders.METRICS).is_file():
        return _of_run(folder, entry)
    if (folder / folders.RECIPE).is_file():
        raise UserError(f"{folder} is an unfinished run: continue it with visionpeft run --resume {folder}")
    if (folder / META).is_file():
        raise OptionError(f"{folder} is an adapter: name the pipeline it was made for, and this as --adapter")
    if entry is not None:
        raise OptionError(f"entry {entry!r}: {source} is a pipeline, and entries are what runs have")
    return Base(str(source), open_pipeline(source))


def _of_run(folder: Path, entry: str | None) -> Base:
    task = load_recipe(folder / folders.RECIPE).task.name  # pyright: ignore[reportAttributeAccessIssue]
    if task != "diffuse":
        raise OptionError(f"{folder} is a run of the task {task}: pipelines and runs of the task diffuse draw pictures")
    opened = open_run(folder, entry, needs_data=False)
    task = opened.stages.task
    assert isinstance(task, DiffuseTask), "its recipe says so"
    trained, before = trained_state(task.model), {}
    if trained:
        with seeded(opened.spec.draw.seed):
            state = open_backbone(opened.recipe, None).model.state_dict()
        before = {name: state[name] for name in trained}
    return Base(
        str(folder),
        task.pipeline,
        tuple(opened.recipe.adapters),
        before,
        task.size,
        task.options.steps,
        task.options.guidance,
        _captions(folder),
    )


def _captions(folder: Path) -> tuple[str, ...]:
    examples = folder / "examples.json"
    return tuple(folders.read_json(examples).get("captions", ())) if examples.is_file() else ()


def adapter_folders(path: Path) -> list[Path]:
    """The adapter folders of ours that a path names: itself, or those of a run; none for a file of another tool.

    Raises:
        AdapterFileError: a run that trained no adapter.
    """
    if (path / META).is_file():
        return [path]
    if not (path / folders.METRICS).is_file():
        return []
    found = [place for place in sorted(path.glob(f"{folders.ADAPTER}*")) if (place / META).is_file()]
    if not found:
        raise AdapterFileError(f"{path} is a run whose main entry trained no adapter: open it in place of the base")
    return found


def place_of(path: Path) -> Path:
    """Where an adapter lies; one inside a run is the run's."""
    whole = path.expanduser().resolve()
    return whole.parent if whole.name == folders.ADAPTER else whole


def handle_of(path: Path) -> str:
    """What an adapter is called: its folder or file, or the run around it, in letters that names may have."""
    whole = place_of(path)
    name = whole.stem if whole.is_file() else whole.name
    return re.sub(r"[^\w-]+", "-", name).strip("-") or "adapter"


@contextmanager
def holding(model: nn.Module, values: dict[str, Tensor]) -> Iterator[None]:
    """Context in which some weights of a model have other values."""
    places = model.state_dict(keep_vars=True)
    mine = {name: places[name].detach().clone() for name in values}
    _copy(places, values)
    try:
        yield
    finally:
        _copy(places, mine)


@torch.no_grad()
def _copy(places: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        places[name].copy_(value)
