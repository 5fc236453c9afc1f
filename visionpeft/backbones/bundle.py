"""A MONAI bundle on disk: which network it describes and where its weights are, read without running what it says."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from monai.networks import nets
from torch import nn

from visionpeft.errors import AdapterFileError

_CONFIGS = ("train", "inference", "evaluate")
_SUFFIXES = (".json", ".yaml", ".yml")
_NETWORK = "network_def"
_IGNORED = {"_desc_", "_requires_", "_disabled_"}  # keys of MONAI's configurations that the constructor never sees


@dataclass(frozen=True)
class Bundle:
    """What a bundle says of its network.

    Attributes:
        network: name of a class in ``monai.networks.nets``.
        options: arguments of its constructor.
        weights: the state dict ``models/model.pt``, whether it exists or not.
    """

    network: str
    options: dict[str, Any]
    weights: Path


def read_bundle(folder: Path) -> Bundle:
    """Read ``configs/train.json`` (or inference, evaluate; or YAML) of the bundle in ``folder``.

    MONAI's own parser evaluates ``$`` expressions and calls any dotted name. Here only constants, references to
    constants (``@key``) and networks of ``monai.networks.nets`` are accepted.

    Raises:
        AdapterFileError: there is no configuration, it does not define a network, or defines one in another way.
    """
    path, config = _configuration(folder)
    definition = config[_NETWORK]
    target = definition.get("_target_") if isinstance(definition, Mapping) else None
    network = _network(target, path)
    given = {key: value for key, value in definition.items() if key != "_target_" and key not in _IGNORED}
    options = {key: _constant(value, config, path, f"{_NETWORK}.{key}") for key, value in given.items()}
    return Bundle(network, options, folder / "models" / "model.pt")


def _configuration(folder: Path) -> tuple[Path, dict[str, Any]]:
    candidates = [folder / "configs" / f"{name}{suffix}" for name in _CONFIGS for suffix in _SUFFIXES]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise AdapterFileError(f"{folder} is no MONAI bundle: there is no {candidates[0].relative_to(folder)} in it")
    for path in found:
        try:
            config = json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
        except (ValueError, yaml.YAMLError) as error:
            raise AdapterFileError(f"{path} cannot be read: {error}") from error
        if isinstance(config, dict) and _NETWORK in config:
            return path, config
    raise AdapterFileError(f"{found[0]} has no key {_NETWORK!r}, which describes the network of a MONAI bundle")


def _network(target: object, path: Path) -> str:
    """The class' name, if ``target`` stands for a network of MONAI: bare, or dotted below ``monai.networks.nets``."""
    package, _, name = str(target).rpartition(".")
    known = getattr(nets, name, None)
    inside = not package or package == nets.__name__ or package.startswith(f"{nets.__name__}.")
    if inside and inspect.isclass(known) and issubclass(known, nn.Module):
        return name
    raise AdapterFileError(
        f"{path}: {_NETWORK} has _target_ {target!r}; only networks of {nets.__name__} are built from a bundle"
    )


def _constant(value: Any, config: Mapping[str, Any], path: Path, where: str, depth: int = 0) -> Any:
    """``value`` with its references to constants of ``config`` replaced."""
    if isinstance(value, str) and value.startswith("@") and depth < 10:
        return _constant(_referred(value, config, path, where), config, path, where, depth + 1)
    if isinstance(value, list):
        return [_constant(item, config, path, where, depth) for item in value]
    if isinstance(value, Mapping) and "_target_" not in value:
        return {key: _constant(item, config, path, f"{where}.{key}", depth) for key, item in value.items()}
    if isinstance(value, Mapping) or (isinstance(value, str) and value.startswith(("$", "%", "@"))):
        raise AdapterFileError(
            f"{path}: {where} is {value!r}; expressions and nested objects of a bundle are not run, "
            "since they can be any code: write the value"
        )
    return value


def _referred(reference: str, config: Mapping[str, Any], path: Path, where: str) -> Any:
    found: Any = config
    for key in reference[1:].replace("#", "::").split("::"):
        try:
            found = found[int(key) if isinstance(found, list) else key]
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise AdapterFileError(f"{path}: {where} refers to {reference!r}, which is not there") from error
    return found
