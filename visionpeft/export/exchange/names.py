"""Names of layers in files: dotted paths, and the flat names of kohya and LyCORIS, in which dots are underscores."""

from __future__ import annotations

import re

from torch import nn

from visionpeft.surgery.slots import FactorModule

KOHYA, LYCORIS, PEFT = "lora_unet_", "lycoris_", "base_model.model."


def flat(path: str) -> str:
    """``down_blocks.0.conv1`` → ``down_blocks_0_conv1``."""
    return path.replace(".", "_")


def layer_paths(model: nn.Module) -> list[str]:
    """Paths of the modules that own a weight, ours not among them."""
    return [
        path
        for path, module in model.named_modules()
        if path and not isinstance(module, FactorModule) and any(True for _ in module._parameters)
    ]


def by_flat_name(model: nn.Module) -> dict[str, str]:
    """Flat name → path, without the flat names that two paths share."""
    found: dict[str, list[str]] = {}
    for path in layer_paths(model):
        found.setdefault(flat(path), []).append(path)
    return {name: paths[0] for name, paths in found.items() if len(paths) == 1}


def pattern(path: str) -> str:
    """A key of peft's ``rank_pattern`` that matches this path alone: unanchored ones match any path they end."""
    return f"^{re.escape(path)}"


def target_modules(model: nn.Module, paths: list[str]) -> list[str] | str:
    """``target_modules`` of a peft configuration for just these layers.

    A list, unless peft would find more by it: an entry also matches every path that ends in it. Then an expression.
    """
    wanted = set(paths)
    reached = {path for path in layer_paths(model) if any(path == p or path.endswith(f".{p}") for p in paths)}
    return sorted(wanted) if reached == wanted else "|".join(re.escape(path) for path in sorted(wanted))
