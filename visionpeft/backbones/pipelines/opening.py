"""Opening a pipeline by folder, by the name of a run or from the hub; all three end at a checked folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError
from torch import nn

from visionpeft.backbones.build import offline
from visionpeft.backbones.pipelines.families import family_of
from visionpeft.backbones.pipelines.folder import INDEX, check_complete, check_folder
from visionpeft.backbones.pipelines.pipeline import Pipeline, settled
from visionpeft.backbones.pipelines.quiet import quiet
from visionpeft.backbones.weights import check_finite, source_folder
from visionpeft.errors import AdapterFileError

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def open_pipeline(source: str | Path, *, device: str = "cpu") -> Pipeline:
    """Open a pipeline of diffusers, every component frozen and in evaluation mode, in 32 bits.

    Args:
        source: a folder of ``save_pretrained``, ``run:<name>`` for what the recipe ``pretrain/<name>`` has trained,
            or a repository of the hub (``org/name``).
        device: where the components go.

    Raises:
        AdapterFileError: the folder lacks a component, or one is of a wrong class, a pickle, truncated or not finite.
        UnknownNameError: a class that diffusers or this library does not know.
        UserError: the hub cannot be reached.
    """
    folder = folder_of(source)
    pipe = _loaded(folder, check_folder(folder))
    family = family_of(type(pipe).__name__)
    _check_classes(folder, pipe, family.needs)
    for name in family.needs:
        check_complete(folder / name, getattr(pipe, name))
    for component in pipe.components.values():
        if isinstance(component, nn.Module):
            component.to(device)
            if getattr(component, "dtype", None) != torch.float32:  # transformers keeps the files' precision
                component.to(torch.float32)
    return settled(pipe, family, f"pipeline {type(pipe).__name__} of {source}")


def folder_of(source: str | Path) -> Path:
    """The folder that ``source`` names; a repository of the hub is fetched into its cache."""
    text = str(source)
    if text.startswith("run:"):
        return source_folder(text.removeprefix("run:"), f"pipeline/{INDEX}") / "pipeline"
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    if not _REPOSITORY.fullmatch(text) or text.startswith("."):
        raise AdapterFileError(f"there is no pipeline folder {path}, and no repository of the hub is called so")
    try:
        return Path(diffusers.DiffusionPipeline.download(text, use_safetensors=True))
    except Exception as error:  # the hub's clients raise errors of several libraries, by version
        raise offline(f"the pipeline {text}", error) from error


def _loaded(folder: Path, name: str) -> Any:
    kind: Any = getattr(diffusers, name)
    try:
        with quiet():
            return kind.from_pretrained(folder, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise AdapterFileError(f"{folder} is no whole {name}: {error}") from error


def _check_classes(folder: Path, pipe: Any, needs: Any) -> None:
    """Every component of the class that its family works with, and its weights finite."""
    for name, classes in needs.items():
        found = type(getattr(pipe, name)).__name__
        if found not in classes:
            raise AdapterFileError(
                f"{folder}: {name} is a {found}; a {type(pipe).__name__} needs {' or '.join(classes)}"
            )
    for name, component in pipe.components.items():
        if isinstance(component, nn.Module):
            check_finite(component.state_dict(), f"{folder / name}")
