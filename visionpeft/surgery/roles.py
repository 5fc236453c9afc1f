"""Roles: what a weight is for, so that ``attn.qkv`` means the same in any family of backbones.

A role is a rule on the kind of the weight and on the names that timm, open_clip, MONAI, diffusers and transformers give
to such layers. One table; a new family is a new name in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from visionpeft.algebra.site import Site


class Weight(NamedTuple):
    """One adaptable weight: ``path`` is the module's for its main weight, else module path and parameter name."""

    path: str
    module_path: str
    module: nn.Module
    parameter: str
    site: Site


def _kernel_of(size: int) -> Callable[[Weight], bool]:
    return lambda w: w.site.kind == "conv" and all(k == size for k in w.site.kernel)


def _named(pattern: str) -> Callable[[Weight], bool]:
    compiled = re.compile(rf"(^|.*\.)({pattern})$")
    return lambda w: w.site.kind != "parameter" and bool(compiled.match(w.path))


def _packed_attention(w: Weight) -> bool:
    return isinstance(w.module, nn.MultiheadAttention) and w.parameter != "bias_k" and w.parameter != "bias_v"


_qkv = _named(
    r"qkv|to_qkv|c_attn|in_proj|to_[qkv]|add_[qkv]_proj|[qkv]_proj|query|key|value|kv|to_kv|"
    r"attn\w*\.[qkv]|q_proj_weight|k_proj_weight|v_proj_weight"
)

ROLES: dict[str, Callable[[Weight], bool]] = {
    "linear": lambda w: w.site.kind == "linear",
    "conv": lambda w: w.site.kind == "conv",
    "conv.1x1": _kernel_of(1),
    "conv.3x3": _kernel_of(3),
    "conv.depthwise": lambda w: w.site.kind == "conv" and w.site.groups > 1 and w.site.inp == 1,
    "embedding": lambda w: w.site.kind == "embedding",
    "parameter": lambda w: w.site.kind == "parameter",
    "attn.qkv": lambda w: _packed_attention(w) or _qkv(w),
    "attn.out": _named(r"(\w*attn\w*|attention)\.(proj|out_proj|to_out\.0|c_proj|proj_out|out)|out_proj|to_out\.0"),
    "mlp.up": _named(r"fc1|c_fc|linear1|net\.0\.proj|w1|w12|up_proj|gate_proj|mlp\.0"),
    "mlp.down": _named(r"fc2|mlp\.c_proj|linear2|net\.2|w2|w3|down_proj|mlp\.2"),
    "patch_embed": _named(r"patch_embed\w*\.proj|patch_embeddings?(\.\d+)?|visual\.conv1|patch_embedding\.\w+"),
    "head": _named(r"(visual\.)?(trunk\.)?(head|classifier|fc|head\.fc|heads\.head|head\.l)"),
}
"""Role → rule on a weight. The role ``block`` names modules, not weights: see :func:`blocks_of`."""

BLOCK_CLASSES = re.compile(
    r"(Block|BlockV2|Block2D|EncoderLayer|DecoderLayer|Bottleneck|InvertedResidual|ResidualUnit|Layer)$"
)
NORM = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


def weight_slices(pattern_slices: list[str], weight: Weight, offered: dict[str, Site]) -> dict[str, Site] | None:
    """The asked slices of a weight, or None where it has none of them.

    Separate projections answer to the slice their name stands for: ``attn.qkv[q,v]`` is ``to_q`` and ``to_v`` where a
    family keeps them apart.
    """
    if offered:
        return {s: offered[s] for s in pattern_slices} if set(pattern_slices) <= set(offered) else None
    leaf = weight.path.rpartition(".")[2]
    letter = re.fullmatch(r"(?:to_|add_)?([qkv])(?:_proj)?(?:_weight)?|(query|key|value)", leaf)
    stands_for = (letter.group(1) or letter.group(2)[0]) if letter else None
    return {"": weight.site} if stands_for in pattern_slices else None


def blocks_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The transformer or residual blocks of a network: the outermost modules whose class is named like one."""
    found: list[tuple[str, nn.Module]] = []
    for path, module in model.named_modules():
        base = getattr(type(module), "base_class", type(module))
        inside = any(path.startswith(outer + ".") for outer, _ in found)
        if path and not inside and BLOCK_CLASSES.search(base.__name__) and _is_member(model, path):
            found.append((path, module))
    return found


def _is_member(model: nn.Module, path: str) -> bool:
    """Whether the module is one of a list or sequence: stages and necks named like blocks are not."""
    return path.rpartition(".")[2].isdigit()


def is_norm(module: nn.Module) -> bool:
    base = getattr(type(module), "base_class", type(module))
    return isinstance(module, NORM) or base.__name__.endswith("Norm") or "Norm" in base.__name__
