"""The networks of MONAI, by the name of their class, with options that make the volumetric ones work as they are."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from monai.networks import nets
from torch import nn

from visionpeft.backbones.build import build, local_weights
from visionpeft.backbones.spec import Backbone, InputSpec, Request
from visionpeft.errors import OptionError, unknown

_COMMON = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2}
_PYRAMID = {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2)}
_OWN: dict[str, dict[str, Any]] = {
    "UNet": {**_PYRAMID, "num_res_units": 2},
    "AttentionUnet": _PYRAMID,
    "DynUNet": {"kernel_size": [3] * 5, "strides": [1, 2, 2, 2, 2], "upsample_kernel_size": [2] * 4},
    "SegResNet": {"init_filters": 16},
    "SwinUNETR": {"feature_size": 48},
}
_SIZE = 96  # voxels of a side of the usual training patch


def load(request: Request) -> Backbone:
    """See :func:`visionpeft.backbones.load`; the options go to the class' constructor.

    ``num_classes`` is the number of output channels, ``image_size`` the side of an example's cube (or square).
    """
    name, pretrained = request.name, request.pretrained
    network = _network(name)
    if pretrained is True:
        raise OptionError(f"monai/{name} has no published weights: give pretrained a path or false")
    size = request.image_size or _SIZE
    options = {**_defaults(name, network, size), **request.options}
    if request.num_classes is not None:
        options["out_channels"] = request.num_classes
    model = build(f"monai/{name}", network, request.device, **options)
    note = local_weights(model, pretrained) if pretrained else "random weights"
    channels = options.get("in_channels", 1)
    shape = (1, channels, *[size] * options.get("spatial_dims", 3))
    spec = InputSpec(size, channels, mean=(0.0,) * channels, std=(1.0,) * channels, interpolation="bilinear")
    return Backbone(model, spec, (note,), lambda: torch.zeros(shape, device=request.device))


def _network(name: str) -> type[nn.Module]:
    found = {key: value for key, value in vars(nets).items() if inspect.isclass(value) and issubclass(value, nn.Module)}
    if name not in found:
        raise unknown("MONAI network", name, {value.__name__ for value in found.values()})
    return found[name]


def _defaults(name: str, network: type[nn.Module], size: int) -> dict[str, Any]:
    """Our defaults for those options the constructor has."""
    offered = {**_COMMON, "img_size": size, **_OWN.get(name, {})}
    known = inspect.signature(network).parameters
    return {key: value for key, value in offered.items() if key in known}
