"""Layers of a foreign file related to the modules of a network, and what does not belong to it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from visionpeft.errors import AdapterFileError, did_you_mean
from visionpeft.export.exchange.changes import Change
from visionpeft.export.exchange.kinds import change_of, refusal
from visionpeft.export.exchange.layers import grouped
from visionpeft.export.exchange.names import by_flat_name, layer_paths
from visionpeft.export.exchange.source import Foreign, bare
from visionpeft.export.exchange.tools import pipeline_of
from visionpeft.surgery.hosts import base_class, sites_of


@dataclass(frozen=True, eq=False)
class Resolved:
    """Changes of the weights of a network, and what a file holds beyond them: name → why it is left out."""

    changes: list[Change]
    dropped: dict[str, str]


def resolve(foreign: Foreign, model: nn.Module, component: str) -> Resolved:
    """Relate a file to a network.

    Raises:
        AdapterFileError: the adapter is for another architecture: layers that this network has not, or other shapes.
    """
    foreign, paths = _located(foreign, model, component)
    found, dropped = [], dict.fromkeys(foreign.elsewhere, "belongs to a text encoder, not to the denoiser")
    dropped |= dict.fromkeys(foreign.strange, "belongs to no layer of a known kind")
    for layer in foreign.layers:
        path = paths[layer.name]
        module = model.get_submodule(path)
        site = sites_of(module).get("weight")
        reason = refusal(layer, site)
        if reason is not None or site is None:
            dropped[layer.name] = reason or "this layer has no matrix to adapt"
            continue
        if layer.changes_bias:
            dropped[f"{layer.name} (bias)"] = "changes the bias; adapters here change weights"
        place = Change(path, path, "weight", site)
        found.append(change_of(layer, place, foreign.scale(layer)))
    order = {path: place for place, path in enumerate(layer_paths(model))}
    return Resolved(sorted(found, key=lambda change: order[change.module]), dropped)


def _located(foreign: Foreign, model: nn.Module, component: str) -> tuple[Foreign, dict[str, str]]:
    """The file with layer names of this network, and layer name → path."""
    paths, missing = _paths(foreign, model)
    if missing and (renamed := _renamed(foreign, model, component)) is not None:
        foreign = renamed
        paths, missing = _paths(foreign, model)
    if missing:
        known = layer_paths(model)
        near = did_you_mean(bare(missing[0]), known) if len(missing) < len(foreign.layers) else ""
        raise AdapterFileError(
            f"{foreign.path} is for another architecture: {len(missing)} of {len(foreign.layers)} layers are not in "
            f"this {base_class(model).__name__}, the first: {missing[0]!r}.{near}"
        )
    return foreign, paths


def _paths(foreign: Foreign, model: nn.Module) -> tuple[dict[str, str], list[str]]:
    known, flat = set(layer_paths(model)), by_flat_name(model)
    paths, missing = {}, []
    for layer in foreign.layers:
        name = bare(layer.name)
        path = next((p for p in (name, f"{name}.0", flat.get(name)) if p in known), None)  # to_out was to_out.0 once
        if path is None:
            missing.append(layer.name)
        else:
            paths[layer.name] = path
    return paths, missing


def _renamed(foreign: Foreign, model: nn.Module, component: str) -> Foreign | None:
    """The same file in diffusers' names, by diffusers' own converters: of the U-Net and of Flux as first published.

    They know LoRA alone and lose DoRA's magnitudes; None where they would, or do not know the names.
    """
    pipeline = pipeline_of(model, component)
    if pipeline is None or any(layer.kind != "LoRA" or layer.gained for layer in foreign.layers):
        return None
    tensors = {f"{layer.name}.{_KOHYA[role]}": t for layer in foreign.layers for role, t in layer.tensors.items()}
    more = {"unet_config": model.config} if component == "unet" else {"return_alphas": True}
    try:
        state, alphas = pipeline.lora_state_dict(tensors, **more)[:2]
    except (ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError):  # names that it does not know
        return None
    layers, strange = grouped(state)
    given = grouped({key: torch.as_tensor(value) for key, value in (alphas or {}).items()})[0]
    alpha = {layer.name: layer.tensors for layer in given}
    joined = [replace(layer, tensors={**layer.tensors, **alpha.get(layer.name, {})}) for layer in layers]
    return replace(foreign, layers=tuple(joined), strange=(*foreign.strange, *strange))


_KOHYA = {"down": "lora_down.weight", "up": "lora_up.weight", "mid": "lora_mid.weight", "alpha": "alpha"}
