"""Adapter folders: ``adapter.safetensors``, ``modules.safetensors`` for what was trained whole, ``adapter.json``.

The JSON is written last and holds the checksums of the others: a folder without it is not an adapter, and one whose
files were cut or changed is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from visionpeft.algebra.method import Options
from visionpeft.errors import AdapterFileError, UserError
from visionpeft.files import atomic_write
from visionpeft.methods import make
from visionpeft.surgery.about import KEY
from visionpeft.surgery.about import about as describe
from visionpeft.surgery.adapt import adapt
from visionpeft.surgery.fingerprint import base_parameters, digests
from visionpeft.surgery.ledger import known_to, record, statistics, statistics_digests
from visionpeft.surgery.merge import remove
from visionpeft.surgery.state import adapter_state_dict, load_adapter_state_dict

FORMAT = 1
ADAPTER, MODULES, META = "adapter.safetensors", "modules.safetensors", "adapter.json"
ENTRIES = {
    "format": (int, "a whole number"),
    "method": (str, "the name of a method"),
    "options": (dict, "a table of options"),
    "targets": (list, "a list of module paths"),
    "sha256": (dict, "a table of checksums"),
    "base": (dict, "a table of digests"),
}
"""What ``adapter.json`` must hold."""


def save(
    model: nn.Module, folder: str | Path, name: str = "default", *, about: Mapping[str, Any] | None = None
) -> Path:
    """Write an adapter, and whatever was trained beside it, to a folder.

    Beside the factors go all other trainable parameters (a head, norms) and the running statistics of normalisation
    layers where they changed since the model was adapted. The header of ``adapter.safetensors`` tells method, options
    and the fingerprint of the base.

    Args:
        about: what else the header shall tell, such as ``recipe``, ``base`` and ``base_licence``.

    Returns:
        The folder.

    Raises:
        StateError: the model has no adapter of that name.
        AdapterFileError: a factor is not finite.
        UserError: the folder cannot be written.
    """
    folder, known = Path(folder), record(model, name)
    tensors = {ADAPTER: adapter_state_dict(model, name), MODULES: trained_beside(model, name)}
    _check_finite(tensors)
    # Clones, since tied parameters share memory, and in the ordinary layout (a convolution may be channels-last): the
    # format refuses both.
    header = {KEY: json.dumps(describe(model, name, about or {}))}
    contents = {
        file: safetensors.torch.save({key: t.detach().cpu().contiguous().clone() for key, t in state.items()}, header)
        for file, state in tensors.items()
        if state
    }
    from visionpeft import __version__

    meta = {
        "format": FORMAT,
        "visionpeft": __version__,
        "method": known.method.name,
        "options": known.method.options(),
        "targets": known.targets,
        "sha256": {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()},
        "base": {key: value for key, value in digests(model).items() if key not in tensors[MODULES]},
    }
    _write_together(folder, contents | {META: json.dumps(meta, indent=1).encode()})
    return folder


def _write_together(folder: Path, contents: dict[str, bytes]) -> None:
    """Write all files apart before any takes its place, so that a full disk leaves an older adapter in it whole."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as staging:
            for file, content in contents.items():
                atomic_write(Path(staging) / file, content)
            for file in contents:
                os.replace(Path(staging) / file, folder / file)
        for file in {ADAPTER, MODULES} - contents.keys():
            (folder / file).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error


def trained_beside(model: nn.Module, name: str = "default") -> dict[str, Tensor]:
    """Trainable base parameters, and running statistics that changed since the adapter was made."""
    trained = {key: p.detach() for key, p in base_parameters(model).items() if p.requires_grad}
    before, now = record(model, name).statistics, statistics_digests(model)
    changed = {key: t for key, t in statistics(model).items() if before.get(key) != now[key]}
    return trained | changed


def load(model: nn.Module, folder: str | Path, name: str = "default") -> nn.Module:
    """Adapt a base model with a saved adapter, or load it into the adapter of that name if the model has it.

    Returns:
        The model, adapted in place.

    Raises:
        AdapterFileError: no adapter folder, a pickle, cut or changed files, another format, another base, or factors
            that do not fit. The model is left as it was.
    """
    folder = Path(folder)
    meta = read_meta(folder)
    factors, modules = read_tensors(folder, meta, ADAPTER), read_tensors(folder, meta, MODULES)
    _check_base(model, meta, folder)
    _check_modules(model, modules, folder)
    present = name in known_to(model)
    method = _method(meta, folder)
    if not present:
        adapt(model, method, meta["targets"], name)
    elif (have := record(model, name).method) != method:
        raise AdapterFileError(f"{folder} holds {method}, but adapter {name!r} of the model is {have}")
    try:
        load_adapter_state_dict(model, factors, name)
    except AdapterFileError as error:
        if not present:
            remove(model, name)
        raise AdapterFileError(f"{folder / ADAPTER}: {error}") from None
    _copy(model, modules)
    return model


def _method(meta: dict[str, Any], folder: Path) -> Options:
    try:
        return make(meta["method"], meta["options"])
    except UserError as error:
        raise AdapterFileError(f"{folder / META}: {error}") from None


def read_meta(folder: Path) -> dict[str, Any]:
    """The checked content of ``adapter.json``."""
    if folder.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt"):
        raise AdapterFileError(f"{folder} looks like a pickle, which can run code: adapters are folders of safetensors")
    if not (folder / META).is_file():
        pickles = sorted(p.name for ending in ("bin", "pt", "pth", "pkl") for p in folder.glob(f"*.{ending}"))
        hint = f" {pickles[0]} is a pickle, which can run code, and is not read." if pickles else ""
        raise AdapterFileError(f"{folder} is no adapter folder: it has no {META}.{hint}")
    try:
        meta = json.loads((folder / META).read_text())
    except ValueError as error:
        raise AdapterFileError(f"{folder / META} is damaged: {error}") from None
    except OSError as error:
        raise AdapterFileError(f"{folder / META} cannot be read: {error.strerror}") from None
    for key, (kind, right) in ENTRIES.items():
        found = meta.get(key) if isinstance(meta, dict) else meta
        if not isinstance(found, kind):
            raise AdapterFileError(f"{folder / META} is damaged: {key} is {found!r}, but it must be {right}")
    if meta["format"] != FORMAT:
        raise AdapterFileError(f"{folder / META}: format is {meta['format']}, but this version reads {FORMAT}")
    return meta


def read_tensors(folder: Path, meta: dict[str, Any], file: str) -> dict[str, Tensor]:
    """The tensors of one file, after its checksum was compared."""
    if file not in meta["sha256"]:
        return {}
    try:
        content = (folder / file).read_bytes()
    except OSError as error:
        raise AdapterFileError(f"{folder / file} cannot be read: {error.strerror}") from None
    if (found := hashlib.sha256(content).hexdigest()) != meta["sha256"][file]:
        raise AdapterFileError(
            f"{folder / file} was cut or changed: its sha256 is {found[:12]}…, {META} says {meta['sha256'][file][:12]}…"
        )
    try:
        return safetensors.torch.load(content)
    except SafetensorError as error:
        raise AdapterFileError(f"{folder / file} is no safetensors file: {error}") from None


def _check_base(model: nn.Module, meta: dict[str, Any], folder: Path) -> None:
    here = digests(model)
    other = [key for key, value in meta["base"].items() if here.get(key) != value]
    if other:
        more = f" and {len(other) - 1} more of {len(meta['base'])}" if len(other) > 1 else ""
        what = "has other values or shape" if other[0] in here else "is missing"
        half = any(p.dtype == torch.float16 for p in base_parameters(model).values())
        hint = ". float16 rounds unlike bfloat16: load the adapter first, then call half()" if half else ""
        raise AdapterFileError(f"{folder} was made on another base: {other[0]!r} {what} here{more}{hint}")


def _places(model: nn.Module) -> dict[str, Tensor]:
    return {**base_parameters(model), **statistics(model)}


def _check_modules(model: nn.Module, modules: dict[str, Tensor], folder: Path) -> None:
    places = _places(model)
    for key, tensor in modules.items():
        if key not in places or places[key].shape != tensor.shape:
            found = tuple(places[key].shape) if key in places else "no such weight"
            raise AdapterFileError(f"{folder / MODULES}: {key!r} is {tuple(tensor.shape)}, the model has {found}")


def _copy(model: nn.Module, modules: dict[str, Tensor]) -> None:
    places = _places(model)
    with torch.no_grad():
        for key, tensor in modules.items():
            places[key].copy_(tensor)
            if isinstance(places[key], nn.Parameter):  # trained beside the adapter, so it goes with it from now on
                places[key].requires_grad_(True)


def _check_finite(tensors: dict[str, dict[str, Tensor]]) -> None:
    for file, state in tensors.items():
        for key, tensor in state.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise AdapterFileError(f"{file}: {key!r} has NaN or infinite values; nothing was written")
