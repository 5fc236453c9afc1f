"""Merge, unmerge, remove. The original of a merged weight is kept, so unmerging restores it to the bit."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from visionpeft.algebra.method import Method
from visionpeft.errors import OptionError, StateError, did_you_mean
from visionpeft.kernels.recompute import layers  # pyright: ignore[reportMissingImports]
from visionpeft.surgery.ledger import forget, known_to, record
from visionpeft.surgery.mount import adapters, hosts, unmount
from visionpeft.surgery.paths import effective_weight
from visionpeft.surgery.quantized import is_quantized, relative_error, rounded_like
from visionpeft.surgery.slots import Slot
from visionpeft.surgery.trainable import thaw

Ending = Literal["refuse", "full", "round"]


def merge(model: nn.Module, names: list[str] | str | None = None, *, quantized: Ending = "refuse") -> dict[str, float]:
    """Fold the active adapters into the weights: the model then computes with plain layers.

    The sum is taken in float64 (float32 where a device has no float64) and cast once. The original parameter is kept
    beside it.

    Args:
        names: adapters to fold; None takes all that are active.
        quantized: what becomes of weights in few bits: ``full`` leaves the merged ones in full, ``round`` rounds them
            again, ``refuse`` raises.

    Returns:
        Weight → ‖rounded − merged‖ / ‖merged‖ of those that were rounded again.

    Raises:
        StateError: already merged, no such or no active adapter, or one that cannot be merged exactly. Nothing is
            changed then.
    """
    if quantized not in get_args(Ending):
        raise OptionError(f"quantized = {quantized!r}.{did_you_mean(quantized, get_args(Ending))}")
    wanted, errors = [names] if isinstance(names, str) else names, {}
    _check_active(model, wanted)
    folds = [fold for path, host in hosts(model) for fold in _folds(path, host, wanted)]
    _check_bits(folds, quantized)
    for path, host, parameter, slots, adapter_names in folds:
        original = _stored(host, parameter)
        bank, folded = adapters(host), _folded(slots, original)
        new = nn.Parameter(folded, requires_grad=False)
        if quantized == "round" and is_quantized(original):
            new = rounded_like(folded, original)
            errors[f"{path}.{parameter}".removeprefix(".")] = relative_error(new, folded)
        host._parameters[parameter] = new
        bank.merged[parameter] = (original, adapter_names)
        bank.plans.clear()
    return errors


def _check_bits(folds: list, quantized: Ending) -> None:
    held = [path for path, host, parameter, _, _ in folds if is_quantized(_stored(host, parameter))]
    if held and quantized == "refuse":
        raise StateError(
            f"merge: {len(held)} weights are in few bits (the first: {held[0] or 'the layer'!r}), and a merged one "
            "would not fit them. merge(quantized='full') leaves merged weights in full; quantized='round' rounds them "
            "again and returns the errors"
        )


def _stored(host: nn.Module, parameter: str) -> nn.Parameter:
    """The parameter itself, where reading the attribute would give the adapted weight."""
    stored = host._parameters[parameter]
    assert stored is not None
    return stored


def _check_active(model: nn.Module, wanted: list[str] | None) -> None:
    acting = {name for _, host in hosts(model) for name, _, slot in adapters(host).slots() if slot.active}
    for name in wanted or ():
        record(model, name)
        if name not in acting:
            raise StateError(f"merge: adapter {name!r} is not active; activate it first")
    if not acting:
        raise StateError("merge: the model has no active adapter")


def _folds(path: str, host: nn.Module, wanted: list[str] | None):
    """(path, host, parameter, slots, adapter names) of every weight to fold, checked."""
    bank = adapters(host)
    if bank.merged:
        raise StateError(f"merge: {path or 'the model'!r} is merged already; call unmerge first")
    by_parameter: dict[str, list[tuple[str, Slot]]] = {}
    for name, _, slot in bank.slots():
        if slot.active and slot.strength and (wanted is None or name in wanted):
            if not slot.method.mergeable:
                raise StateError(
                    f"merge: {slot.method.name} on {path or 'the model'!r} is no change of a weight and cannot be "
                    "merged; name the adapters that can, or export it as a module"
                )
            by_parameter.setdefault(slot.parameter, []).append((name, slot))
        elif slot.active and slot.strength and wanted is not None:
            _check_left(path, name, slot)
    for parameter, named in by_parameter.items():
        yield path, host, parameter, [slot for _, slot in named], frozenset(name for name, _ in named)


def _check_left(path: str, name: str, slot: Slot) -> None:
    """A gain left unmerged would act on the folded weight, which is another function."""
    if isinstance(slot.method, Method) and slot.method.multiplicative:
        raise StateError(
            f"merge: adapter {name!r} ({slot.method.name}) on {path or 'the model'!r} scales what the others change, "
            "so it must be merged with them, or be inactive"
        )


@torch.no_grad()
def _folded(slots: list[Slot], weight: torch.Tensor) -> torch.Tensor:
    wide = torch.float32 if weight.device.type in ("mps", "xla") else torch.float64
    return effective_weight(slots, weight, wide).contiguous()


def unmerge(model: nn.Module) -> None:
    """Put the kept originals back.

    Raises:
        StateError: nothing is merged.
    """
    if not is_merged(model):
        raise StateError("unmerge: nothing is merged")
    for _, host in hosts(model):
        unfold(host)


def unfold(host: nn.Module) -> dict[str, tuple[nn.Parameter, frozenset[str]]]:
    """Put one host's originals back and return what :func:`refold` needs to undo that."""
    bank, folded = adapters(host), {}
    for parameter, (original, names) in bank.merged.items():
        merged = _stored(host, parameter)
        folded[parameter] = (merged, names)
        if (original.device, original.dtype) != (merged.device, merged.dtype):  # the model was moved or cast meanwhile
            original.data = original.data.to(merged.device, merged.dtype)
        host._parameters[parameter] = original
    bank.merged = {}
    bank.plans.clear()
    return folded


def refold(host: nn.Module, folded: dict[str, tuple[nn.Parameter, frozenset[str]]]) -> None:
    adapters(host).plans.clear()
    for parameter, (merged, names) in folded.items():
        adapters(host).merged[parameter] = (_stored(host, parameter), names)
        host._parameters[parameter] = merged


def is_merged(model: nn.Module) -> bool:
    return any(adapters(host).merged for _, host in hosts(model))


def remove(model: nn.Module, name: str | None = None) -> None:
    """Take an adapter (or all) off; with the last one, classes, keys and what trains are those of the base again.

    After ``merge`` all adapters go at once and the merged weights stay: that is how a plain merged model is made.
    Call ``unmerge`` before to get the base back.

    Raises:
        StateError: no such adapter, or one of several merged adapters is named.
    """
    if name is not None:
        record(model, name)
        if is_merged(model):
            raise StateError("remove: the model is merged; unmerge it first, or remove all to keep the merged weights")
    for _, host in hosts(model):
        unmount(host, name)
    records = known_to(model)
    if records:
        forget(model, name)
    if records and not known_to(model):
        thaw(model, next(iter(records.values())).thawed)
        layers.detach(model)
