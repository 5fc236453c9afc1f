"""Foreign changes taken over as an adapter of ours: LoRA where they are products, else the smallest exact method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionpeft.algebra.factor import squared_rows
from visionpeft.errors import AdapterFileError, SiteError
from visionpeft.export.exchange.changes import Change, stored_weight
from visionpeft.export.exchange.encode import product_of
from visionpeft.export.exchange.lowrank import Budget, Fit, fitted, total
from visionpeft.export.exchange.twins import plain_twin
from visionpeft.surgery.adapt import adapt
from visionpeft.surgery.folder import save
from visionpeft.surgery.state import adapter_state_dict, load_adapter_state_dict


@dataclass(frozen=True)
class Adopted:
    """An adapter folder made from foreign changes.

    Attributes:
        path: the folder.
        method: of ours.
        options: its options.
        layers: how well each layer is said.
        dropped: what the source holds and this does not: name → reason.
        error: relative error of all layers together.
    """

    path: Path
    method: str
    options: dict[str, Any]
    layers: tuple[Fit, ...]
    dropped: dict[str, str]
    error: float


def adopt(
    model: nn.Module,
    changes: Sequence[Change],
    folder: Path,
    budget: Budget,
    says: Mapping[str, Any],
    dropped: Mapping[str, str],
) -> Adopted:
    """Save changes as an adapter folder that ``vp.load`` puts on ``model``, which is left as it is.

    Products become ``lora`` (``dora`` where there is a magnitude) of the largest rank among them; layers of a smaller
    one are filled up with components that do nothing yet. Changes of another form become products by their SVD, kept
    until what is missing is rounding; where whole matrices are smaller than that, ``flora`` holds them in its core.

    Raises:
        AdapterFileError: there is nothing to adapt.
    """
    if not changes:
        raise AdapterFileError(f"there is no change that an adapter can make; left out: {dict(dropped)}")
    pairs = [_product(change, budget) for change in changes]
    fits, products = [fit for _, fit in pairs], [change for change, _ in pairs]
    twin = plain_twin(model)
    if budget == Budget() and _whole_is_smaller(changes, products):
        method, options, fits = _as_cores(twin, changes)
    else:
        method, options = _as_lora(twin, products)
    save(twin, folder, about=says)
    return Adopted(folder, method, options, tuple(fits), dict(dropped), total(fits))


def _product(change: Change, budget: Budget) -> tuple[Change, Fit]:
    if budget == Budget() and change.product is not None:
        return change, Fit(change.path, change.rank, change.additive().norm().item(), 0.0)
    return fitted(change, budget)


def _whole_is_smaller(changes: Sequence[Change], products: Sequence[Change]) -> bool:
    """Whether full cores with their identities hold fewer values than products filled up to one rank."""
    if all(change.product is not None for change in changes) or any(c.magnitude is not None for c in changes):
        return False
    rank = max(change.rank or 0 for change in products)
    thin = sum(rank * (change.site.out + change.site.fan_in) for change in changes)
    sites = [change.site for change in changes]
    return thin > sum(site.out * site.fan_in + site.out**2 + site.inp**2 for site in sites)


def _as_cores(twin: nn.Module, changes: Sequence[Change]) -> tuple[str, dict[str, Any], list[Fit]]:
    """ΔW itself as the core, between identities."""
    sites = [change.site for change in changes]
    ranks = [max(site.out for site in sites), max(site.inp for site in sites)]
    state: dict[str, Tensor] = {}
    for change in changes:
        core, site = change.additive().float(), change.site
        parts = {"core": core, "out": torch.eye(site.out), "inp": torch.eye(site.inp)}
        state |= {_key(change, factor): tensor for factor, tensor in parts.items()}
    options = {"ranks": ranks, "kernel": "identity"}
    _adapt(twin, "flora", changes, options)
    load_adapter_state_dict(twin, state)
    return "flora", options, [Fit(change.path, None, change.additive().norm().item(), 0.0) for change in changes]


def _as_lora(twin: nn.Module, changes: Sequence[Change]) -> tuple[str, dict[str, Any]]:
    ranks = {change.rank or 0 for change in changes}
    scales = {product_of(change).scale for change in changes}
    alike = len(ranks) == len(scales) == 1  # the factors as they are; else the scale goes into B
    rank = max(ranks)
    options = {"rank": rank, "alpha": float(rank * next(iter(scales)) if alike else rank)}
    method = "dora" if any(change.magnitude is not None for change in changes) else "lora"
    _adapt(twin, method, changes, options)
    state = adapter_state_dict(twin)
    for change in changes:
        product = product_of(change)
        state[_key(change, "A")] = torch.cat([product.bank, state[_key(change, "A")][change.rank :].cpu()])
        mixer = product.mixer if alike else product.scale * product.mixer
        state[_key(change, "B")] = nn.functional.pad(mixer, (0, rank - mixer.shape[1]))
        if method == "dora":
            state[_key(change, "magnitude")] = _magnitude(twin, change)
    load_adapter_state_dict(twin, state)
    return method, options


def _magnitude(twin: nn.Module, change: Change) -> Tensor:
    """DoRA's; where a layer has none, the norms that leave its changed weight as it is."""
    if change.magnitude is not None:
        return change.magnitude
    weight = change.site.canonical(stored_weight(twin, change).double())
    return squared_rows(weight + change.additive()).sqrt().float()


def _adapt(twin: nn.Module, method: str, changes: Sequence[Change], options: dict[str, Any]) -> None:
    random = torch.Generator().manual_seed(0)
    report = adapt(twin, method, [change.path for change in changes], generator=random, **options)
    if report.refused:
        first = report.refused[0]
        raise SiteError(f"{len(report.refused)} layers cannot be adapted; {first.path!r}: {first.reason}")


def _key(change: Change, factor: str) -> str:
    return f"{change.module}.{factor}"
