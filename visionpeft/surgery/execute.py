"""How an adapted host computes when it is called, read, or a block whose output is passed on."""

from __future__ import annotations

from dataclasses import replace

import torch.nn.functional as F
from torch import Tensor, nn

from visionpeft.algebra.method import BlockMethod
from visionpeft.algebra.site import Site
from visionpeft.surgery.paths import PATHS, base, effective_weight
from visionpeft.surgery.plan import choose
from visionpeft.surgery.quantized import is_quantized
from visionpeft.surgery.slots import AdapterSet, Block, Slot, is_sharded


def run_layer(host: nn.Module, x: Tensor, output_size: list[int] | None = None) -> Tensor:
    """The host's operation with all its live adapters."""
    bank: AdapterSet = host._modules["adapters"]  # pyright: ignore[reportAssignmentType]
    site, weight, bias = bank.sites["weight"], host._parameters["weight"], host._parameters.get("bias")
    assert weight is not None
    if site.conv is not None and x.dim() == site.conv.axes + 1:  # unbatched (C, *spatial)
        return run_layer(host, x.unsqueeze(0), output_size).squeeze(0)
    if output_size is not None:
        site = _with_output_size(host, site, x, output_size)
    slots = bank.live("weight")
    if not slots:
        return base(site, x, weight, bias)
    path = "factored" if is_quantized(weight) else choose(bank, site, slots, x)
    return PATHS[path](site, slots, x, weight, bias)


def _with_output_size(host: nn.Module, site: Site, x: Tensor, output_size: list[int]) -> Site:
    assert site.conv is not None
    padding = host._output_padding(  # pyright: ignore[reportCallIssue]
        x, output_size, host.stride, host.padding, host.kernel_size, site.conv.axes, host.dilation
    )
    return replace(site, conv=replace(site.conv, output_padding=tuple(padding)))


def read_weight(host: nn.Module, parameter: str) -> Tensor | None:
    """What code sees that reads the parameter: W with its live adapters, or W itself when there are none."""
    raw = host._parameters[parameter]
    bank = host._modules["adapters"]
    assert isinstance(bank, AdapterSet)
    slots = [] if raw is None or is_sharded(raw) else bank.live(parameter)
    return effective_weight(slots, raw) if slots else raw  # pyright: ignore[reportArgumentType]


def after_block(host: nn.Module, output):
    """Add the residuals of block adapters to the output, or to the one of several that is passed on."""
    bank = host._modules["adapters"]
    assert isinstance(bank, AdapterSet)
    slots = bank.live("")
    if not slots:
        return output
    if isinstance(output, tuple):
        main = type(host).passes_on  # pyright: ignore[reportAttributeAccessIssue]
        return (*output[:main], after_block(host, output[main]), *output[main + 1 :])
    total = output
    for slot in slots:
        total = total + slot.strength * _residual(slot, output)
    return total


def _residual(slot: Slot, h: Tensor) -> Tensor:
    """The residual on the channel axis: last for tokens, second for NCHW maps."""
    assert isinstance(slot.method, BlockMethod) and isinstance(slot.site, Block)
    channels_first = slot.site.channels_first(h)
    h = h.movedim(1, -1) if channels_first else h
    if slot.dropout_now:
        h = F.dropout(h, slot.dropout_now)
    change = slot.method.residual(slot.factors(h.dtype), h)
    return change.movedim(-1, 1) if channels_first else change
