"""``quantize`` and ``dequantize``: the base of a model in few bits, and back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from visionpeft.errors import OptionError, StateError, TargetError, did_you_mean
from visionpeft.surgery.hosts import base_class
from visionpeft.surgery.merge import is_merged
from visionpeft.surgery.mount import adapters, is_mounted
from visionpeft.surgery.quantized import FORMS, GROUP, in_full, is_quantized, relative_error, rounded
from visionpeft.surgery.trainable import modules_named

Patterns = Sequence[str] | str


@dataclass(frozen=True)
class Quantized:
    """What was rounded.

    Attributes:
        form: ``int8`` or ``int4``.
        errors: path of a layer → ‖W′ − W‖ / ‖W‖ of its weight.
        left: path of a Linear that stays as it is → why.
        bytes_before, bytes_after: of the rounded weights.
    """

    form: str
    errors: dict[str, float]
    left: dict[str, str]
    bytes_before: int
    bytes_after: int

    def __str__(self) -> str:
        worst = max(self.errors, key=self.errors.__getitem__)
        return (
            f"{len(self.errors)} Linears in {self.form}: {self.bytes_before:,} → {self.bytes_after:,} bytes, relative "
            f"error {sum(self.errors.values()) / len(self.errors):.2%} on average, {self.errors[worst]:.2%} at most "
            f"({worst}); {len(self.left)} left as they are"
        )


def quantize(model: nn.Module, form: str = "int8", targets: Patterns | None = None, keep: Patterns = ()) -> Quantized:
    """Hold the weights of Linears in 8 or 4 bits by torchao, in place; adapters train on top as on any base.

    The rounded weight is the base from then on: it never trains, an adapter's file names it by its fingerprint, and
    adapters computed from a weight (``salt``) start from its rounded values. Convolutions, embeddings and projections
    that torch's attention reads stay as they are.

    Args:
        form: ``int8`` (a scale a row) or ``int4`` (a scale for every 32 inputs). On a CPU torchao keeps four bits in
            a byte each, so that they cost precision and save no more than eight.
        targets: which modules, as for ``train_also``; None takes every Linear.
        keep: modules that stay in full, named likewise: what is to train itself, such as a new head.

    Raises:
        OptionError: another form, or torchao is not installed.
        TargetError: a pattern names no Linear that can be rounded, or there is none.
        StateError: the model has adapters.
    """
    if form not in FORMS:
        raise OptionError(f"form = {form!r}.{did_you_mean(form, FORMS)}")
    if any(is_mounted(module) for module in model.modules()):
        raise StateError("quantize: the model has adapters, which were made for its weights: quantize it first")
    before, errors, left, sizes = 0, {}, {}, 0
    for path, layer in _linears(model, [""] if targets is None else targets, keep):
        if (reason := _why_not(layer, form)) is not None:
            left[path] = reason
            continue
        weight = layer.weight
        layer._parameters["weight"] = rounded(weight, form)
        errors[path] = relative_error(layer.weight, weight)
        before, sizes = before + stored_bytes(weight), sizes + stored_bytes(layer.weight)
    if not errors:
        raise TargetError(
            f"quantize: no Linear can be held in {form}{': ' if left else ''}{next(iter(left.items()), '')}"
        )
    return Quantized(form, errors, left, before, sizes)


def dequantize(model: nn.Module) -> int:
    """Hold every rounded weight in full again, with the values it stands for; the number of weights.

    Adapters stay, and the model computes the same but for rounding.

    Raises:
        StateError: the model is merged.
    """
    if is_merged(model):
        raise StateError("dequantize: the model is merged; call unmerge first")
    found = [module for module in model.modules() if is_quantized(module._parameters.get("weight"))]
    for module in found:
        module._parameters["weight"] = nn.Parameter(in_full(module._parameters["weight"]), requires_grad=False)  # pyright: ignore[reportArgumentType]
        if is_mounted(module):
            adapters(module).plans.clear()
    return len(found)


def stored_bytes(weight: Tensor) -> int:
    """Bytes that a weight takes, with its scales."""
    names = weight.__tensor_flatten__()[0] if is_quantized(weight) else ()  # pyright: ignore[reportAttributeAccessIssue]
    parts = [getattr(weight, name) for name in names] or [weight]
    return sum(part.numel() * part.element_size() for part in parts)


def _linears(model: nn.Module, targets: Patterns, keep: Patterns) -> Iterator[tuple[str, nn.Linear]]:
    inside = _within(model, targets) - _within(model, keep)
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and id(module) in inside:
            yield path, module


def _within(model: nn.Module, patterns: Patterns) -> set[int]:
    """Identities of the modules that the patterns name, and of all in them."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return {id(module) for pattern in patterns for whole in modules_named(model, pattern) for module in whole.modules()}


def _why_not(layer: nn.Linear, form: str) -> str | None:
    if isinstance(layer, NonDynamicallyQuantizableLinear) or base_class(layer).forward is not nn.Linear.forward:
        return "its weight is read by another module, or its class computes in its own way"
    if "weight" not in layer._parameters or is_quantized(layer.weight):
        return "its weight is rounded already, or computed from others"
    if not torch.is_floating_point(layer.weight):
        return f"its weight is {layer.weight.dtype}"
    if form == "int4" and layer.in_features % GROUP:
        return f"its {layer.in_features} inputs do not divide into groups of {GROUP}"
    return None
