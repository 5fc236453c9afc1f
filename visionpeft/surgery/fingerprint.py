"""A fingerprint of base weights, so that an adapter is not put on another base unnoticed."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from visionpeft.surgery.mount import adapters, is_mounted
from visionpeft.surgery.quantized import in_full
from visionpeft.surgery.slots import FactorModule

SAMPLES = 4096


def base_parameters(model: nn.Module) -> dict[str, Tensor]:
    """Name → stored base parameter: no factors, and the originals of merged weights."""
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if isinstance(module, FactorModule) or _inside_factors(path):
            continue
        merged = adapters(module).merged if is_mounted(module) else {}
        for name, parameter in module._parameters.items():
            if parameter is not None:
                original = merged[name][0] if name in merged else parameter
                found[f"{path}.{name}" if path else name] = original
    return found


def _inside_factors(path: str) -> bool:
    return ".adapters." in f".{path}."


def digests(model: nn.Module) -> dict[str, str]:
    """Name → digest of each base parameter; empty for a model on the meta device."""
    return {name: digest(p) for name, p in base_parameters(model).items() if p.device.type != "meta"}


def digest(tensor: Tensor) -> str:
    """Sixteen hex digits of shape and up to 4096 evenly spaced values.

    Values are compared at bfloat16, so that a base loaded in half precision is the same base.
    """
    flat = in_full(tensor.detach()).flatten()
    step = max(1, flat.numel() // SAMPLES)
    sample = flat[::step].to(device="cpu", dtype=torch.bfloat16).contiguous().view(torch.int16)
    return hashlib.sha256(repr(tuple(tensor.shape)).encode() + sample.numpy().tobytes()).hexdigest()[:16]


def fingerprint(model: nn.Module) -> str:
    """One digest of all base parameters."""
    return hashlib.sha256(repr(sorted(digests(model).items())).encode()).hexdigest()[:16]
