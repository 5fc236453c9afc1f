"""Copies of a model that share its tensors: other tools may wrap them, and the model is left as it is."""

from __future__ import annotations

import copy

import torch
from torch import nn

from visionpeft.surgery.ledger import known_to
from visionpeft.surgery.merge import remove
from visionpeft.surgery.switch import activate


def plain_twin(model: nn.Module) -> nn.Module:
    """The base network without adapters, in eval mode and frozen, on the same memory."""
    found = _twin(model)
    if known_to(found):
        remove(found)
    return found.eval().requires_grad_(False)


def adapted_twin(model: nn.Module, name: str) -> nn.Module:
    """The network with one adapter at full strength, on the same memory."""
    found = _twin(model)
    activate(found, name)
    return found.eval().requires_grad_(False)


def _twin(model: nn.Module) -> nn.Module:
    """A deep copy but for the parameters, which are new objects on the old memory: flags differ, values are shared."""
    with torch.no_grad():
        memo: dict[int, object] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, memo)
