"""A small network of each segmentation family, in two and in three dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from visionpeft.backbones import load

_PYRAMID = {"channels": (4, 8, 12), "strides": (2, 2)}
_STEPS = {"kernel_size": [3] * 4, "strides": [1, 2, 2, 2], "upsample_kernel_size": [2] * 3, "filters": [4, 8, 8, 12]}
_VIT = {"hidden_size": 24, "mlp_dim": 32, "num_heads": 3, "feature_size": 4}
_SAM = {"embed_dim": 24, "num_heads": 3, "global_attn_indexes": (2,), "window_size": 2}

_MONAI: dict[str, dict[str, Any]] = {
    "monai/UNet": {**_PYRAMID, "num_res_units": 2},
    "monai/AttentionUnet": _PYRAMID,
    "monai/BasicUNet": {"features": (4, 4, 8, 8, 12, 4)},
    "monai/DynUNet": _STEPS,
    "monai/SegResNet": {"init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)},
    "monai/UNETR": _VIT,
    "monai/SwinUNETR": {
        "feature_size": 12,
        "depths": (1, 1, 1, 1),
        "num_heads": (1, 2, 3, 4),
        "norm_name": ("group", {"num_groups": 4}),
    },
}
_OTHERS: dict[str, dict[str, Any]] = {
    "smp/Unet": {"encoder": "tf_efficientnet_lite0"},
    "smp/FPN": {"encoder": "samvit_base_patch16", **_SAM},
    "smp/DeepLabV3Plus": {"encoder": "resnet10t"},
    "u2net/u2netp": {},
    "deepbet/UNet3D": {},
}

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"{name} {axes}D": (name, {**o, "spatial_dims": axes}) for name, o in _MONAI.items() for axes in (2, 3)},
    **{name: (name, options) for name, options in _OTHERS.items()},
}
"""Label → the network's name and its options."""

_SIDES = {"monai/SegResNet": 16, "monai/UNet": 16, "deepbet/UNet3D": 64, "smp/DeepLabV3Plus": 64, "smp/Unet": 64}


def small(label: str, **more: Any) -> tuple[nn.Module, Tensor]:
    """A small network with random weights, in evaluation, and two random images; always the same."""
    name, options = SMALL[label]
    options = {"pretrained": False, "image_size": _SIDES.get(name, 32), **options, **more}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = load(name, **options)
    shape = (2, *backbone.example_input().shape[1:])
    return backbone.model.eval(), torch.randn(shape, generator=torch.Generator().manual_seed(1))
