"""The state of an adapter: as a dictionary of tensors, strictly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from visionpeft.errors import AdapterFileError, StateError, did_you_mean
from visionpeft.surgery.ledger import record
from visionpeft.surgery.merge import is_merged
from visionpeft.surgery.mount import adapters, hosts


def adapter_state_dict(model: nn.Module, name: str = "default") -> dict[str, Tensor]:
    """``<host path>[.<slice>].<factor>`` → tensor, frozen buffers included. Tensors are the live ones, detached.

    Raises:
        StateError: the model has no adapter of that name.
    """
    return {key: tensor.detach() for key, tensor in _live(model, name).items()}


def load_adapter_state_dict(model: nn.Module, state: Mapping[str, Tensor], name: str = "default") -> None:
    """Load tensors into an adapter. Strict: nothing is changed unless every key and shape fits.

    Raises:
        StateError: the model has no adapter of that name, or is merged.
        AdapterFileError: missing or unexpected keys, other shapes, or values that are not finite.
    """
    live = _live(model, name)
    if is_merged(model):  # the old factors would stay folded into the weights
        raise StateError(f"loading into adapter {name!r}: the model is merged; call unmerge first")
    problems = [f"missing {key!r}" for key in live if key not in state]
    problems += [f"unexpected {key!r}{did_you_mean(key, live)}" for key in state if key not in live]
    for key in live.keys() & state.keys():
        if tuple(state[key].shape) != tuple(live[key].shape):
            problems.append(f"{key!r} is {tuple(state[key].shape)}, but the model's is {tuple(live[key].shape)}")
        elif not bool(torch.isfinite(state[key]).all()):
            problems.append(f"{key!r} has NaN or infinite values")
    if problems:
        more = f" (and {len(problems) - 5} more)" if len(problems) > 5 else ""
        raise AdapterFileError(f"the state does not fit adapter {name!r}: {'; '.join(problems[:5])}{more}")
    with torch.no_grad():
        for key, tensor in live.items():
            tensor.copy_(state[key])


def _live(model: nn.Module, name: str) -> dict[str, Tensor]:
    record(model, name)
    found = {}
    for path, host in hosts(model):
        for _, piece, slot in adapters(host).slots(name):
            for factor, tensor in slot.saved.items():
                found[".".join(part for part in (path, piece, factor) if part)] = tensor
    return found
