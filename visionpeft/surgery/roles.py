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
from visionpeft.surgery.hosts import PROJECTIONS, packs_attention


class Weight(NamedTuple):
    """One adaptable weight: ``path`` is the module's for its main weight, else module path and parameter name.

    ``in_head``: whether it lies in what makes the class maps of a segmentation network, see
    :func:`visionpeft.surgery.parts.parts_of`.
    """

    path: str
    module_path: str
    module: nn.Module
    parameter: str
    site: Site
    in_head: bool = False


Rule = Callable[[Weight], bool]


def _kernel_of(size: int) -> Rule:
    return lambda w: w.site.kind == "conv" and all(k == size for k in w.site.kernel)


def _named(pattern: str, under: str = r"(?:.*\.)?") -> Rule:
    """The last names of a path; ``under`` is what may stand before them."""
    compiled = re.compile(f"{under}(?:{pattern})")
    return lambda w: w.site.kind != "parameter" and bool(compiled.fullmatch(w.path))


def _packed_attention(w: Weight) -> bool:
    return w.parameter in ("in_proj_weight", *PROJECTIONS) and packs_attention(w.module)


def _cuts_patches(w: Weight) -> bool:
    """A convolution whose windows tile the image. The overlapping stem of a ConvNet is no patch embedding."""
    return w.site.conv is not None and w.site.kernel == w.site.conv.stride and max(w.site.kernel) > 1


_qkv = _named(
    r"qkv|to_qkv|c_attn|in_proj|to_[qkv]|add_[qkv]_proj|[qkv]_proj|query|key|value|kv|to_kv|"
    r"(attn\w*|SelfAttention|EncDecAttention)\.[qkv]|q_proj_weight|k_proj_weight|v_proj_weight"
)
_patches = _named(r"\w*patch_embed\w*\.(proj|projection)|\w*patch_embeddings?(\.\d+)?|patch_embedding\.\w+|x_embedder")
_stem = _named(r"visual\.conv1|conv_proj|stem\.0|pos_embed\.proj")
_up = _named(
    r"fc1|fc1_[gx]|c_fc|linear1|net\.0\.proj|up_proj|gate_proj|mlp\.0|intermediate\.dense|w1|w3|w12|proj_mlp|wi(_[01])?"
)
_down = _named(
    r"fc2|mlp\.c_proj|linear2|net\.2|down_proj|mlp\.[23]|output\.dense|w2|w3|wo|"
    r"single_transformer_blocks\.\d+\.proj_out"  # of Flux: what comes out of attention and MLP, side by side
)
_head = _named(  # of networks whose parts are not known as a whole
    r"(head|head_dist|fc|classifier)(\.(fc|l|head|\d+))?|heads\.head|"
    r"out\.conv\.conv|output_block\.conv\.conv|conv_final\.\d+\.conv|(decoder\.)?conv_out|proj_out(_2)?",
    under=r"(?:(?:model|backbone|net|module|visual|trunk)\.)*",
)

ROLES: dict[str, Rule] = {
    "linear": lambda w: w.site.kind == "linear",
    "conv": lambda w: w.site.kind == "conv",
    "conv.1x1": _kernel_of(1),
    "conv.3x3": _kernel_of(3),
    "conv.depthwise": lambda w: w.site.kind == "conv" and w.site.groups > 1 and w.site.inp == 1,
    "embedding": lambda w: w.site.kind == "embedding",
    "parameter": lambda w: w.site.kind == "parameter",
    "attn.qkv": lambda w: _packed_attention(w) or _qkv(w),
    "attn.out": _named(
        r"(\w*attn\w*|attention)\.(proj|out_proj|to_out\.0|c_proj|proj_out|out)|out_proj|o_proj|to_out\.0|"
        r"attention\.output\.dense|to_add_out|(SelfAttention|EncDecAttention)\.o"
    ),
    # Squeeze-and-excitation uses the same names the other way round, so the shape has a say.
    "mlp.up": lambda w: _up(w) and w.site.out > w.site.inp,
    "mlp.down": lambda w: _down(w) and w.site.out < w.site.inp,
    "patch_embed": lambda w: _patches(w) or (_stem(w) and _cuts_patches(w)),
    "head": lambda w: w.in_head or _head(w),
}
"""Role → rule on a weight. The role ``block`` names modules, not weights: see :func:`blocks_of`."""

_BLOCK = re.compile(
    r"\w*(Block(V2|2D)?|(?<!Conv)Layer|Bottleneck|(Inverted|Edge|CondConv)Residual|ResidualUnit|"
    r"DepthwiseSeparableConv|MBConv)"
)
_BLOCK_WHEREVER = re.compile(r"ResidualUnit|ResBlock|UnetResBlock|UnetBasicBlock|ResnetBlock2D")
NORM = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


def letters_of(weight: Weight, offered: dict[str, Site]) -> dict[str, tuple[str, Site]]:
    """``q``, ``k``, ``v`` → (slice, site) as far as the weight has them; the slice is empty where it is the whole.

    Separate projections answer to the letter their name stands for: ``attn.qkv[q,v]`` is ``to_q`` and ``to_v`` where a
    family keeps them apart.
    """
    if offered:
        return {letter: (letter, site) for letter, site in offered.items()}
    leaf = weight.path.rpartition(".")[2]
    letter = re.fullmatch(r"(?:to_|add_)?([qkv])(?:_proj)?(?:_weight)?|(query|key|value)", leaf)
    return {(letter[1] or letter[2][0]): ("", weight.site)} if letter else {}


def roles_in(weights: list[Weight]) -> dict[str, int]:
    """Role → number of weights, for the roles that are not empty."""
    counts = {role: sum(map(rule, weights)) for role, rule in ROLES.items()}
    return {role: count for role, count in counts.items() if count}


def blocks_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The transformer or residual blocks of a network: the innermost modules whose class is named like one.

    Such a module is one of a list (its name ends in a number), which the parts of a block are not, or of a class that
    networks use for residual blocks alone. A stage that holds blocks is none.
    """
    named = {path: module for path, module in model.named_modules() if path and _is_block(path, module)}
    outer = {path.rsplit(".", n)[0] for path in named for n in range(1, path.count(".") + 1)}
    return [(path, module) for path, module in named.items() if path not in outer]


def _is_block(path: str, module: nn.Module) -> bool:
    name = getattr(type(module), "base_class", type(module)).__name__
    member = re.search(r"(^|[._])[a-z]?\d+$", path)
    return bool(_BLOCK_WHEREVER.fullmatch(name) or (_BLOCK.fullmatch(name) and member))


def is_norm(module: nn.Module) -> bool:
    base = getattr(type(module), "base_class", type(module))
    return isinstance(module, NORM) or base.__name__.endswith("Norm") or "Norm" in base.__name__
