"""Switching adapters on a living model: plan, strength, activation, disabling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from visionpeft.errors import StateError, UserError
from visionpeft.surgery.ledger import ledger, record
from visionpeft.surgery.merge import is_merged, refold, unfold
from visionpeft.surgery.mount import adapters, hosts
from visionpeft.surgery.plan import check_plan


def set_plan(model: nn.Module, plan: str, name: str | None = None) -> None:
    """Force the execution path of one adapter or of all.

    Args:
        plan: ``auto`` counts and chooses; ``factored`` keeps to the branch; ``dense`` builds W+ΔW each step; ``fused``
            runs the kernels of eager mode; ``direct`` goes around W where a method can (SALT). All are exact.

    Raises:
        OptionError: no such plan.
        StateError: the model has no adapter of that name.
    """
    check_plan(plan)
    if name is not None:
        record(model, name)
    for _, host in hosts(model):
        adapters(host).plans.clear()
        for _, _, slot in adapters(host).slots(name):
            slot.plan = plan


def activate(model: nn.Module, names: str | list[str] | Mapping[str, float]) -> None:
    """Make just these adapters act, each with a strength (1 where none is given). The others keep their weights.

    Factors of inactive adapters stop training, so that distributed training does not wait for their gradients.

    Raises:
        StateError: the model has no adapter of that name, or is merged.
        UserError: a strength is no finite number.
    """
    names = [names] if isinstance(names, str) else names
    strengths = dict(names) if isinstance(names, Mapping) else dict.fromkeys(names, 1.0)
    for name, strength in strengths.items():
        record(model, name)
        if isinstance(strength, bool) or not isinstance(strength, int | float) or not math.isfinite(strength):
            raise UserError(f"activate: strength of {name!r} is {strength!r}, but it must be a finite number")
    if is_merged(model):  # what is folded into the weights would go on acting
        raise StateError("activate: the model is merged; call unmerge first")
    for _, host in hosts(model):
        adapters(host).plans.clear()
        for name, _, slot in adapters(host).slots():
            slot.active, slot.strength = name in strengths, float(strengths.get(name, 1.0))
            for parameter in slot.parameters():
                parameter.requires_grad_(slot.active)


def active(model: nn.Module) -> dict[str, float]:
    """Name → strength of the adapters that act now."""
    found = {name: slot for _, host in hosts(model) for name, _, slot in adapters(host).slots()}
    return {name: found[name].strength for name in ledger(model) if name in found and found[name].active}


@contextmanager
def disable(model: nn.Module) -> Iterator[None]:
    """Within this context the model is its base, to the bit, merged or not."""
    banks = [(host, adapters(host)) for _, host in hosts(model)]
    before = [(bank.enabled, unfold(host)) for host, bank in banks]
    for _, bank in banks:
        bank.enabled = False
    try:
        yield
    finally:
        for (host, bank), (enabled, folded) in zip(banks, before, strict=True):
            bank.enabled = enabled
            refold(host, folded)
