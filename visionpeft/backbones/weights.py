"""Weights files: read without executing code, checked, and fitted to a model or refused with a reason."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from visionpeft.errors import AdapterFileError, did_you_mean
from visionpeft.files import cache_dir, resource

State = dict[str, torch.Tensor]
_MODEL = "model.safetensors"
_WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys under which training scripts put the weights


def source_path(pretrained: str) -> Path:
    """The file of ``run:<name>`` (what a recipe ``pretrain/<name>`` has trained) or of a plain path.

    Raises:
        AdapterFileError: there is no such file; for ``run:`` the message names the command that makes it.
    """
    if not pretrained.startswith("run:"):
        path = Path(pretrained).expanduser()
        if not path.is_file():
            raise AdapterFileError(f"there is no weights file {path}")
        return path
    return source_folder(pretrained.removeprefix("run:"), _MODEL) / _MODEL


def source_folder(name: str, content: str) -> Path:
    """The folder of what the recipe ``pretrain/<name>`` has published, which must hold the file ``content``.

    Raises:
        AdapterFileError: it has not been trained here; the message names the recipe that does, or near names.
    """
    sources = cache_dir() / "sources"
    folder = sources / name
    if not (folder / content).is_file():
        known = [recipe.stem for recipe in resource("recipes/pretrain").glob("*.yaml")]
        made = [other.name for other in sources.glob("*") if (other / content).is_file()]
        how = f"Train it once with: visionpeft run recipes/pretrain/{name}.yaml" if name in known else ""
        near = "" if name in known else did_you_mean(name, [*made, *known])
        raise AdapterFileError(
            f"the source model {name!r} has not been trained here ({folder / content} is missing).{near} {how}".rstrip()
        )
    return folder


def read_state(path: Path) -> State:
    """Read a ``.safetensors`` file or a state dict saved by ``torch.save``.

    Raises:
        AdapterFileError: the file is truncated, not a weights file, a TorchScript archive, or a pickle that holds more
            than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        _refuse_program(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise AdapterFileError(
            f"{path} is a pickle with more than tensors in it; loading it could run foreign code. "
            "Save the bare state dict, best as .safetensors"
        ) from error
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError) as error:
        raise AdapterFileError(f"{path} is truncated or no weights file: {error}") from error
    return _bare(content, path)


def _refuse_program(path: Path) -> None:
    if zipfile.is_zipfile(path) and any("/code/" in name for name in zipfile.ZipFile(path).namelist()):
        raise AdapterFileError(
            f"{path} is a TorchScript archive, as OpenAI distributes CLIP: a program, not weights. Where you trust it, "
            f"save what it holds: torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pt')"
        )


def _bare(content: object, path: Path) -> State:
    """Take the state dict out of the wrappings of training scripts."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise AdapterFileError(f"{path} holds no state dict (names with tensors)")
    if content and all(key.startswith("module.") for key in content):  # saved from DataParallel
        return {key.removeprefix("module."): value for key, value in content.items()}
    return dict(content)


def check_finite(state: Mapping[str, torch.Tensor], origin: str) -> None:
    """Raise AdapterFileError naming the first tensor that holds NaN or infinity."""
    for key, value in state.items():
        if value.is_floating_point() and not value.is_meta and not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value)).sum())
            raise AdapterFileError(f"{origin}: {key} holds {bad} value(s) that are NaN or infinite")


def fit(
    model: nn.Module,
    state: State,
    origin: str,
    heads: Collection[str] = (),
    adjust: Callable[[State], State] | None = None,
) -> str:
    """Load ``state`` into ``model``: every tensor must find its place, but for a head of another size.

    A module that is registered under several paths needs its tensors under one of them.

    Args:
        heads: paths of the modules that depend on the number of classes; they are left at their random start if the
            file's have another number of outputs.
        adjust: called once if the file does not fit as it is (renames keys, resamples position tables).

    Returns:
        A note that says what was loaded and what was not.

    Raises:
        AdapterFileError: the file is of another architecture, or a tensor holds NaN.
    """
    check_finite(state, origin)
    complaint, dropped = _complaint(model, state, heads)
    if complaint and adjust is not None:
        state = adjust(state)
        complaint, dropped = _complaint(model, state, heads)
    if complaint:
        raise AdapterFileError(f"{origin} does not fit {type(model).__name__}: {complaint}")
    kept, first = {key: value for key, value in state.items() if key not in dropped}, _first_names(model)
    model.load_state_dict(kept, strict=False)
    note = f"{len({first[key] for key in kept})} of {len(set(first.values()))} tensors loaded from {origin}"
    return f"{note}; not loaded: {', '.join(k for k in dropped if first[k] == k)} (new head)" if dropped else note


def _complaint(model: nn.Module, state: State, heads: Collection[str]) -> tuple[str, list[str]]:
    """Why ``state`` does not fit (empty: it does), and the heads' tensors that must be left out."""
    own, first = model.state_dict(), _first_names(model)
    in_heads = {first[key] for key in own if any(key.startswith(f"{head}.") for head in heads)}
    of_heads = [key for key in own if first[key] in in_heads]
    changed = [key for key in own if key in state and state[key].shape != own[key].shape]
    dropped = of_heads if any(key in of_heads for key in changed) else []
    given = {first[key] for key in state if key in own}
    reasons = []
    if missing := [key for key in own if first[key] not in given and key not in dropped]:
        reasons.append(f"{len(missing)} of {len(own)} tensors are missing, such as {missing[0]}")
    if extra := [key for key in state if key not in own and key not in dropped]:
        reasons.append(f"{len(extra)} are not part of it, such as {extra[0]}")
    if shapes := [key for key in changed if key not in dropped]:
        key = shapes[0]
        reasons.append(f"{key} is {tuple(state[key].shape)}, not {tuple(own[key].shape)}")
    return "; ".join(reasons), dropped


def _first_names(model: nn.Module) -> dict[str, str]:
    """Name of each tensor → the first of the names that the same tensor has."""
    first: dict[int, str] = {}
    return {key: first.setdefault(id(tensor), key) for key, tensor in model.state_dict(keep_vars=True).items()}
