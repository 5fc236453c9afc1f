"""The exact execution paths of an adapted operation: factored, dense, direct, fused."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from visionpeft.algebra.method import Factors, Method
from visionpeft.algebra.site import Site
from visionpeft.kernels.eager.guard import ordinary_precision  # pyright: ignore[reportMissingImports]
from visionpeft.surgery import fused, quantized
from visionpeft.surgery.slots import Slot


def dense(site: Site, slots: list[Slot], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W+ΔW, built for this call, in one operation."""
    return site.op(x, effective_weight(slots, weight), bias)


def base(site: Site, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The host's own operation."""
    return quantized.linear(x, weight, bias) if quantized.is_quantized(weight) else site.op(x, weight, bias)


def factored(site: Site, slots: list[Slot], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The base operation, plus each adapter's branch. A method without a branch takes the dense path."""
    if all(not slot.method.multiplicative for slot in slots):  # pyright: ignore[reportAttributeAccessIssue]
        plain, rest = base(site, x, weight, bias), None
    else:  # a gain acts on the output before the bias
        plain, rest = base(site, x, weight), bias
    total, pieces = plain, []
    for slot in slots:
        effect = _effect(slot, site, x, plain, weight)
        if effect is None:
            return dense(site, slots, x, weight, bias)
        if slot.site.is_slice:  # pyright: ignore[reportAttributeAccessIssue]
            pieces.append((_of(slot)[1], effect))
        else:
            total = total + effect
    total = _with_slices(total, site, pieces)
    return total if rest is None else total + site.per_channel(rest).to(total.dtype)


def _with_slices(total: Tensor, site: Site, pieces: list[tuple[Site, Tensor]]) -> Tensor:
    """Add what acts on slices of the channels: joined where they fill all of them once, else each padded with zeros."""
    pieces = sorted(pieces, key=lambda piece: piece[0].start)
    filled = [row for slice_, _ in pieces for row in (slice_.start, slice_.start + slice_.out)]
    if pieces and filled[0] == 0 and filled[-1] == site.rows and filled[1:-1:2] == filled[2::2]:
        return total + torch.cat([effect for _, effect in pieces], site.channel_dim)
    for slice_, effect in pieces:
        total = total + slice_.whole_rows(effect, site.channel_dim)
    return total


def _effect(slot: Slot, site: Site, x: Tensor, base: Tensor, weight: Tensor) -> Tensor | None:
    """What a slot adds to the channels of its own rows; None where its method has no branch."""
    method, mine = _of(slot)
    mine = replace(mine, conv=site.conv)
    dropping = slot.dropout_now and x.is_floating_point()
    if dropping:
        x = F.dropout(x, slot.dropout_now)
    rows, own = base, weight
    if method.multiplicative:
        own = mine.canonical(quantized.in_full(weight))
        rows = base.narrow(site.channel_dim, mine.start, mine.out) if mine.is_slice else base
    effect = method.effect(mine, slot.factors(), x, rows, own)
    if effect is None and dropping:
        effect = _dense_effect(method, mine, slot.factors(base.dtype), x, rows, own)
    if effect is None:
        return None
    return effect if slot.strength == 1 else slot.strength * effect


def _dense_effect(method: Method, site: Site, f: Factors, x: Tensor, rows: Tensor, weight: Tensor) -> Tensor:
    """The effect by ΔW itself, where dropout must act on its input alone and the method has no branch."""
    response = site.op(x, site.to_native(method.delta(site, f)))
    response = response.narrow(site.channel_dim, site.start, site.out) if site.is_slice else response
    if not method.multiplicative:
        return response
    gain = site.per_channel(method.gain(site, f, weight)).to(rows.dtype)  # pyright: ignore[reportAttributeAccessIssue]
    return (gain - 1) * rows + gain * response


def _of(slot: Slot) -> tuple[Method, Site]:
    assert isinstance(slot.method, Method) and isinstance(slot.site, Site)
    return slot.method, slot.site


def direct(site: Site, slots: list[Slot], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(W+ΔW)∘x without W, for a single adapter whose method knows how."""
    if weight.requires_grad:  # W is trained, and its gradient must reach it
        return factored(site, slots, x, weight, bias)
    (slot,) = slots
    method, mine = _of(slot)
    y = method.direct(mine, slot.factors(x.dtype if x.is_floating_point() else weight.dtype), x)
    if y is None:
        return factored(site, slots, x, weight, bias)
    return y if bias is None else y + site.per_channel(bias).to(y.dtype)


def effective_weight(slots: list[Slot], weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """W + Σ strength·change, in the factors' precision (or ``dtype``), cast once to the weight's.

    Args:
        slots: the live adapters of this weight.
        weight: the host's stored weight.
        dtype: precision of the sum; None takes the wider of weight and factors.
    """
    total, weight = None, quantized.in_full(weight)
    for slot in slots:
        method, site = _of(slot)
        factors = slot.factors(dtype)
        wide = dtype or torch.promote_types(weight.dtype, next(iter(factors.values())).dtype)
        base = weight.to(wide)
        with ordinary_precision(weight):  # autocasting would round the change before it is added
            change = method.change(site, factors, site.canonical(base))
        change = site.to_native(change if slot.strength == 1 else slot.strength * change)
        total = (base if total is None else total) + change
    assert total is not None
    return total.to(weight.dtype)


PATHS = {"factored": factored, "dense": dense, "direct": direct, "fused": fused.run}
