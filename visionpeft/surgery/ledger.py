"""What a model remembers of its adapters: method, options, targets, and what it was before them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from torch import Tensor, nn

from visionpeft.algebra.method import Options
from visionpeft.errors import StateError, did_you_mean

_ATTRIBUTE = "_visionpeft"


@dataclass
class Record:
    """One adapter.

    Args:
        method: the algebra and its options.
        targets: exact paths, so that a reload needs no pattern.
        statistics: running statistic → digest, as it was when the adapter was made.
        thawed: base parameters that trained before any adapter came.
    """

    method: Options
    targets: list[str]
    statistics: dict[str, str] = field(default_factory=dict)
    thawed: frozenset[str] = frozenset()


def ledger(model: nn.Module) -> dict[str, Record]:
    """Adapter name → record. Lives on the model, so that it is copied and pickled with it."""
    return model.__dict__.setdefault(_ATTRIBUTE, {})


def known_to(model: nn.Module) -> dict[str, Record]:
    """A copy of the ledger, empty where the model was never adapted; unlike :func:`ledger` it leaves no trace."""
    return dict(model.__dict__.get(_ATTRIBUTE, {}))


def forget(model: nn.Module, name: str | None) -> None:
    records = ledger(model)
    for known in list(records):
        if name in (None, known):
            del records[known]
    if not records:
        del model.__dict__[_ATTRIBUTE]


def record(model: nn.Module, name: str) -> Record:
    """The record of an adapter.

    Raises:
        StateError: the model has no adapter of that name.
    """
    known = known_to(model)
    if name not in known:
        raise StateError(f"the model has no adapter {name!r}.{did_you_mean(name, known) or ' It has none.'}")
    return known[name]


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """Running statistics of the normalisation layers, by name."""
    return {
        name: buffer
        for name, buffer in model.named_buffers()
        if name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
        and buffer.device.type != "meta"
    }


def statistics_digests(model: nn.Module) -> dict[str, str]:
    """Name → digest of every bit: a statistic that moved a little has moved."""
    return {name: _exact_digest(buffer) for name, buffer in statistics(model).items()}


def _exact_digest(buffer: Tensor) -> str:
    content = buffer.detach().double().cpu().contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
