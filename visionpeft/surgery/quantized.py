"""A weight that torchao holds in few bits: how it is told, read in full, used without keeping it in full, and re-made.

torchao itself is imported only where a weight is rounded.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpeft.errors import OptionError, UserError, did_you_mean

FORMS = {"int8": "8 bits, a scale a row", "int4": "4 bits, a scale for every 32 inputs; on a CPU a byte holds each"}
_FOUR_BITS = getattr(torch, "int4")  # noqa: B009 - torch's stubs do not know it
GROUP = 32
"""Inputs that share a scale in four bits."""


def is_quantized(weight: Tensor | None) -> bool:
    """Whether a weight is one of torchao's tensors."""
    # The plain kinds first: torch.compile and torch.export can compare types, but not read a class's module.
    if weight is None or type(weight) in (Tensor, nn.Parameter):
        return False
    return type(weight).__module__.startswith("torchao.")


def in_full(weight: Tensor) -> Tensor:
    """The values that a weight stands for, as a plain tensor; a plain weight as it is."""
    return weight.detach().dequantize() if is_quantized(weight) else weight


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` by torchao's kernel; for backward the few bits are kept, not the values that they stand for."""
    if torch.compiler.is_compiling():
        return F.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(weight)
        ctx.dtype = x.dtype

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        (weight,), (gradient,) = ctx.saved_tensors, gradients
        of_x = (gradient @ in_full(weight).to(gradient.dtype)).to(ctx.dtype) if ctx.needs_input_grad[0] else None
        of_bias = gradient.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        return of_x, None, of_bias


def rounded(values: Tensor, form: str) -> nn.Parameter:
    """A matrix ``(out, in)`` as torchao holds it in ``int8`` or ``int4``, frozen.

    Raises:
        OptionError: another form, or torchao is not installed.
    """
    from_torchao = _torchao()
    if form not in FORMS:
        raise OptionError(f"form = {form!r}.{did_you_mean(form, FORMS)}")
    if form == "int8":
        config = from_torchao.Int8WeightOnlyConfig()
    else:
        group = from_torchao.PerGroup(GROUP)
        config = from_torchao.IntxWeightOnlyConfig(weight_dtype=_FOUR_BITS, granularity=group)
    return _by(config, values)


def rounded_like(values: Tensor, other: Tensor) -> nn.Parameter:
    """A matrix in the form that another weight has.

    Raises:
        UserError: one of torchao's many that are not made here.
    """
    if (form := form_of(other)) is None:
        kind = type(other).__name__
        raise UserError(f"weights of torchao's {kind} are not made here: merge in full, then round with torchao itself")
    return rounded(values, form)


def form_of(weight: Tensor) -> str | None:
    """``int8`` or ``int4`` as made here, or None."""
    block: Any = tuple(getattr(weight, "block_size", ()))
    if type(weight).__name__ == "Int8Tensor" and block == (1, weight.shape[1]):
        return "int8"
    four = getattr(weight, "target_dtype", None) is _FOUR_BITS
    return "int4" if four and block == (1, GROUP) else None


def relative_error(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖."""
    difference = (in_full(found).double() - wanted.double()).norm()
    return (difference / wanted.double().norm().clamp_min(torch.finfo(torch.float32).tiny)).item()


def _by(config: Any, values: Tensor) -> nn.Parameter:
    layer = nn.Linear(values.shape[1], values.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(values.detach().clone(), requires_grad=False)
    _torchao().quantize_(layer, config)
    layer.weight.requires_grad_(False)
    return layer.weight


def _torchao() -> Any:
    try:
        import torchao.quantization
    except ImportError as error:
        raise OptionError(f"weights in few bits need torchao: pip install 'visionpeft[quant]' ({error})") from error
    return torchao.quantization
