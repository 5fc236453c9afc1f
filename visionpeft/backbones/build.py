"""Calling a library's constructor on any device, with its complaints turned into ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from visionpeft.backbones.weights import fit, read_state, source_path
from visionpeft.errors import OptionError, UserError, did_you_mean


def build(name: str, constructor: Callable[..., nn.Module], device: str, *args: Any, **options: Any) -> nn.Module:
    """Return ``constructor(*args, **options)`` on ``device``; on ``"meta"`` no memory is taken for weights.

    Raises:
        OptionError: the constructor does not know an option or does not accept a value.
    """
    _check_options(name, constructor, options)
    try:
        if device != "meta":
            return constructor(*args, **options).to(device)
        return _on_meta(lambda: constructor(*args, **options))
    except (TypeError, AssertionError, ValueError, KeyError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise OptionError(f"{name} cannot be built with {given}: {error}") from error


def local_weights(model: nn.Module, pretrained: str) -> str:
    """Load a local file or the source of a recipe (``run:<name>``) into ``model``; returns the note."""
    path = source_path(pretrained)
    return fit(model, read_state(path), str(path))


def offline(name: str, error: Exception) -> UserError:
    """The error for weights that the hub did not deliver."""
    return UserError(
        f"the weights of {name} could not be fetched from the hub: {error}. Without internet give pretrained the path "
        "of a weights file, 'run:<name>' for a source model trained here, or, for timm/tf_efficientnet_lite0, 'package'"
    )


def _on_meta(construct: Callable[[], nn.Module]) -> nn.Module:
    try:
        with torch.device("meta"):
            return construct()
    except (RuntimeError, NotImplementedError):  # some constructors read values of the tensors they make
        return construct().to("meta")


def _check_options(name: str, constructor: Callable[..., nn.Module], options: dict[str, Any]) -> None:
    parameters = inspect.signature(constructor).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters]
    for key in options:
        if key not in known:
            raise OptionError(f"{name} has no option {key!r}.{did_you_mean(key, known)}")
