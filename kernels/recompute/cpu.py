"""Where an activation came from, so that a backward pass can compute it again instead of keeping it.

A pointwise activation or a norm keeps its *input* for its own backward pass; the layer behind it keeps its *output*.
The second copy is not needed: the output follows from the first, bit for bit, at a percent or two of the time of the
layer. Some of torch's operations tell all that it takes by what they hold; the functions of this folder publish it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

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


_LAYER_NORM = _Source(
    layer_norm,
    ("_saved_input", "_saved_result1", "_saved_result2", "_saved_weight", "_saved_bias"),
    ("_saved_normalized_shape",),
)
_SOURCES = {
    "GeluBackward0": _Source(_gelu, rest=("_saved_approximate",)),
    "SiluBackward0": _Source(torch.ops.aten.silu),
    "MishBackward0": _Source(torch.ops.aten.mish),
    "HardswishBackward0": _Source(torch.ops.aten.hardswish),
    "LeakyReluBackward0": _Source(torch.ops.aten.leaky_relu, rest=("_saved_negative_slope",)),
    "HardtanhBackward0": _Source(torch.ops.aten.hardtanh, rest=("_saved_min_val", "_saved_max_val")),
    "PreluKernelBackward0": _Source(torch.ops.aten._prelu_kernel, ("_saved_self", "_saved_weight")),
    "MulBackward0": _Source(torch.ops.aten.mul, ("_saved_self", "_saved_other")),  # DoRA's gain on a convolution
}

FEWEST = 2**14
"""Numbers of a tensor that is worth a label: making a smaller one again takes longer than it is worth in bytes."""


def made_by(
    y: Tensor, function: Callable[..., Tensor], tensors: tuple[Tensor, ...], rest: tuple[Any, ...] = ()
) -> Tensor:
    """``y``, labelled with how it was made; :func:`source_of` reads the label.

    For a cheap function of parameters and buffers, which are there anyway: whoever needs ``y`` in backward keeps
    those. A tensor of less than :data:`FEWEST` numbers gets no label. A copy or view of ``y`` has none, and neither
    does a label count once ``y`` or what it was made from has been changed in place.
    """
    # In this order: a compiler cannot be asked for grad_fn.
    if y.numel() >= FEWEST and usable(y) and y.grad_fn is not None:
        recipe = Recipe(function, tensors, rest)
        y._made_by = recipe, _versions(y, recipe)  # pyright: ignore[reportAttributeAccessIssue]
    return y


def _versions(y: Tensor, recipe: Recipe) -> list[int]:
    return [y._version, *(tensor._version for tensor in recipe.tensors if tensor is not None)]


def source_of(x: Tensor) -> Recipe | None:
    """The recipe of ``x``, when it is the untouched output of a cheap operation whose inputs autograd holds.

    None where there is nothing to gain or it is not safe: ``x`` has no such origin, was modified in place, gradients
    are off, the fused operations may not run (:func:`usable`), or checkpointing's hooks are at work (a look at a
    tensor they hold would run the checkpointed region again).
    """
    node = x.grad_fn
    if node is None or not torch.is_grad_enabled() or not usable(x) or saved_by_torch_hooks():
        return None
    if label := getattr(x, "_made_by", None):
        recipe, versions = label
        return recipe if versions == _versions(x, recipe) else None
    if x._version != getattr(node, "output_version", 0) or x.output_nr:
        return None
    try:
        return _recipe(node)
    except RuntimeError:  # freed by an earlier backward pass, or modified in place since it was saved
        return None


def _recipe(node: Any) -> Recipe | None:
    name = type(node).__name__
    if remake := getattr(node, "remake", None):
        return _published(node, remake)
    if name in _SOURCES:
        return _read(node, _SOURCES[name])
    if name == "NativeLayerNormBackward0":
        return _layer_norm_recipe(node)
    return None


def _published(node: Any, remake: Recipe) -> Recipe | None:
    """From a function of ours, which publishes its recipe over its own saved tensors."""
    if any(saved_by_torch_hooks(saved=raw) for raw in node._raw_saved_tensors):
        return None
    return Recipe(remake.function, node.saved_tensors, remake.rest)


def _read(node: Any, source: _Source) -> Recipe | None:
    if any(saved_by_torch_hooks(saved=getattr(node, f"_raw{name}")) for name in source.tensors):
        return None
    tensors = tuple(getattr(node, name) for name in source.tensors)
    if any(tensor is None for tensor in tensors[:2]):  # a third may be a weight that is not there
        return None
    return Recipe(source.function, tensors, tuple(getattr(node, name) for name in source.rest))


def _layer_norm_recipe(node: Any) -> Recipe | None:
    if (recipe := _read(node, _LAYER_NORM)) is None:
        return None
    x, _, rstd, weight, _ = recipe.tensors
    assert x is not None and rstd is not None
    eps = epsilon_of(x, rstd, weight, recipe.rest[0])
    return None if eps is None else Recipe(recipe.function, recipe.tensors, (*recipe.rest, eps))
