"""visionpeft adapts pretrained vision and 3D models with few trainable weights.

``import visionpeft as vp`` loads torch and nothing heavier; backbones, data and training are loaded when used.
"""

from __future__ import annotations

import importlib
from typing import Any

from visionpeft import errors

__version__ = "0.1.0"

_HOMES = {
    "visionpeft.methods": ["methods"],
    "visionpeft.surgery.adapt": ["adapt"],
    "visionpeft.surgery.audit": ["audit"],
    "visionpeft.surgery.state": ["adapter_state_dict", "load_adapter_state_dict"],
    "visionpeft.surgery.folder": ["save", "load"],
    "visionpeft.surgery.merge": ["merge", "unmerge", "remove"],
    "visionpeft.surgery.quantize": ["quantize", "dequantize"],
    "visionpeft.surgery.switch": ["set_plan", "disable", "activate", "active"],
    "visionpeft.surgery.trainable": ["adapter_parameters"],
    "visionpeft.pipeline": ["run"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
__all__ = ["__version__", "errors", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'visionpeft' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
