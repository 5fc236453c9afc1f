"""Where an activation came from, so that a backward pass can compute it again instead of keeping it.

A pointwise activation or a LayerNorm keeps its *input* for its own backward pass; the layer behind it keeps its
*output*. The second copy is not needed: the output follows from the first, bit for bit, at a percent or two of the
time of the layer. ReLU and other operations that keep their output need nothing: both share one storage already.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from visionpeft.kernels.eager.guard import saved_by_torch_hooks, usable
from visionpeft.kernels.recompute.layer_norm import epsilon_of, layer_norm


class Recipe(NamedTuple):
    """``function(*tensors, *rest)`` is the activation. ``tensors`` are kept by autograd anyway (or are parameters)."""

    function: Callable[..., Tensor]
    tensors: tuple[Tensor | None, ...]
    rest: tuple[Any, ...] = ()

    def made_from(self, tensors: tuple[Tensor | None, ...]) -> Tensor:
        """The activation, from ``tensors`` as autograd gave them back."""
        return self.function(*tensors, *self.rest)


class _Source(NamedTuple):
    """How to run a node's operation again: the names of its saved tensors, then of its other arguments."""

    function: Callable[..., Tensor]
    tensors: tuple[str, ...] = ("_saved_self",)
    rest: tuple[str, ...] = ()


def _gelu(x: Tensor, approximate: str) -> Tensor:
    return torch.ops.aten.gelu(x, approximate=approximate)


_SOURCES = {
    "GeluBackward0": _Source(_gelu, rest=("_saved_approximate",)),
    "SiluBackward0": _Source(torch.ops.aten.silu),
    "MishBackward0": _Source(torch.ops.aten.mish),
    "HardswishBackward0": _Source(torch.ops.aten.hardswish),
    "LeakyReluBackward0": _Source(torch.ops.aten.leaky_relu, rest=("_saved_negative_slope",)),
    "HardtanhBackward0": _Source(torch.ops.aten.hardtanh, rest=("_saved_min_val", "_saved_max_val")),
    "PreluKernelBackward0": _Source(torch.ops.aten._prelu_kernel, ("_saved_self", "_saved_weight")),
    "NativeLayerNormBackward0": _Source(
        layer_norm,
        ("_saved_input", "_saved_result1", "_saved_result2", "_saved_weight", "_saved_bias"),
        ("_saved_normalized_shape",),
    ),
}


def source_of(x: Tensor) -> Recipe | None:
    """The recipe of ``x``, when it is the untouched output of a cheap operation whose inputs autograd holds.

    None where there is nothing to gain or it is not safe: ``x`` has no such origin, was modified in place, gradients
    are off, the fused operations may not run (:func:`usable`), or checkpointing's hooks are at work (a look at a
    tensor they hold would run the checkpointed region again).
    """
    node = x.grad_fn
    if node is None or not torch.is_grad_enabled() or x._version or x.output_nr or not usable(x):
        return None
    source = _SOURCES.get(type(node).__name__)
    if source is None or saved_by_torch_hooks():
        return None
    return _read(node, source)


def _read(node: Node, source: _Source) -> Recipe | None:
    if any(saved_by_torch_hooks(node, name) for name in source.tensors):
        return None
    try:
        tensors = tuple(getattr(node, name) for name in source.tensors)
    except RuntimeError:  # freed by an earlier backward pass, or modified in place since it was saved
        return None
    if tensors[0] is None:
        return None
    rest = tuple(getattr(node, name) for name in source.rest)
    if source.function is layer_norm:
        eps = epsilon_of(tensors[0], tensors[2], tensors[3], rest[0])
        return None if eps is None else Recipe(layer_norm, tensors, (*rest, eps))
    return Recipe(source.function, tensors, rest)
