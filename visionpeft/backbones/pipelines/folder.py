"""A pipeline's folder looked through before anything of it is loaded, so that what is wrong is said by its name."""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
from safetensors import SafetensorError, safe_open
from torch import nn

from visionpeft.backbones.pipelines.families import family_of
from visionpeft.errors import AdapterFileError, unknown

INDEX = "model_index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_MODELS = {"diffusers": ("diffusers", "ModelMixin"), "transformers": ("transformers", "PreTrainedModel")}


def check_folder(folder: Path) -> str:
    """The class of the pipeline in ``folder``, whose components are all there, of the named classes and readable.

    Raises:
        AdapterFileError: what is missing, damaged or a pickle.
        UnknownNameError: a class that does not exist or has no family here.
    """
    index = read_json(folder / INDEX, "this is no folder of a diffusers pipeline")
    name = str(index.get("_class_name"))
    family_of(name)
    listed = {key: value for key, value in index.items() if isinstance(value, list) and len(value) == 2}
    for component in _required(getattr(diffusers, name)):
        if not any(listed.get(component, ())):
            raise AdapterFileError(f"{folder / INDEX} names no {component!r}, which a {name} needs")
    for component, (library, kind) in listed.items():
        if kind is not None:
            _check_component(folder / component, library, kind)
    return name


def read_json(path: Path, otherwise: str) -> dict[str, Any]:
    """The mapping in a JSON file; ``otherwise`` says what its absence means."""
    if not path.is_file():
        raise AdapterFileError(f"{path} is missing: {otherwise}")
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise AdapterFileError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise AdapterFileError(f"{path} holds no JSON object")
    return content


def _required(pipeline: Any) -> list[str]:
    """Arguments of the pipeline's constructor that must be there."""
    optional = pipeline._optional_components
    parameters = inspect.signature(pipeline.__init__).parameters.values()
    return [p.name for p in parameters if p.name not in ("self", *optional) and p.default is p.empty]


def _check_component(folder: Path, library: str, kind: str) -> None:
    if not folder.is_dir():
        raise AdapterFileError(f"the pipeline's component {folder.name!r} ({library}.{kind}) is missing: {folder}")
    if library not in _MODELS:
        return
    package, base = _MODELS[library]
    module = importlib.import_module(package)
    if not hasattr(module, kind):
        raise unknown(f"class of {library} in {folder.parent / INDEX}", kind, dir(module))
    if not issubclass(getattr(module, kind), getattr(module, base)):
        return
    check_model(folder, kind)


def check_model(folder: Path, kind: str) -> None:
    """Raise AdapterFileError unless ``folder`` holds whole weights of a ``kind``; pickles alone are refused."""
    config = read_json(folder / "config.json", f"the configuration of a {kind}")
    if (found := config.get("_class_name", kind)) != kind:
        raise AdapterFileError(f"{folder} holds a {found}, not the {kind} that is asked for")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in _PICKLES]
        if not pickles:
            raise AdapterFileError(f"{folder} holds no weights (.safetensors)")
        raise AdapterFileError(
            f"{folder} holds its weights as a pickle ({pickles[0]}), which could run foreign code when it is loaded. "
            "Where you trust it, load it once with diffusers and save it: save_pretrained writes .safetensors"
        )
    for path in files:
        try:
            with safe_open(path, "pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise AdapterFileError(f"{path} is truncated or no weights file: {error}") from error
    for listing in folder.glob("*.safetensors.index.json"):
        shards = set(read_json(listing, "").get("weight_map", {}).values())
        if missing := sorted(shards - {path.name for path in files}):
            raise AdapterFileError(f"{folder} lacks {missing[0]}, one of {len(shards)} files of its weights")


def check_complete(folder: Path, model: nn.Module) -> None:
    """Raise AdapterFileError if the files hold fewer tensors than ``model`` has parameters: the rest would be random.

    Names are not compared, for diffusers renames those of older versions.
    """
    held: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            held |= set(file.keys())
    own = [name for name, _ in model.named_parameters()]
    if len(held) < len(own):
        absent = next((name for name in own if name not in held), own[-1])
        raise AdapterFileError(f"{folder} holds {len(held)} of {len(own)} tensors of its network: {absent} is missing")
