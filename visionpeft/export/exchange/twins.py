"""Copies of a model that share its tensors: other tools may wrap them, and the model is left as it is."""

from __future__ import annotations

import copy
from collections.abc import Collection

from torch import nn

from visionpeft.surgery.ledger import known_to
from visionpeft.surgery.merge import remove
from visionpeft.surgery.switch import activate


def plain_twin(model: nn.Module, own: Collection[str] = ()) -> nn.Module:
    """The base network without adapters, in eval mode and frozen, on the same memory.

    Args:
        own: names of parameters that are to be overwritten, so that the twin gets copies of them.
    """
    found = _twin(model, own)
    if known_to(found):
        remove(found)
    return found.eval().requires_grad_(False)


def adapted_twin(model: nn.Module, name: str) -> nn.Module:
    """The network with one adapter at full strength, on the same memory."""
    found = _twin(model)
    activate(found, name)
    return found.eval().requires_grad_(False)


def _twin(model: nn.Module, own: Collection[str] = ()) -> nn.Module:
    """A deep copy but for the parameters, which are new objects on the old memory: flags differ, values are shared."""
    memo: dict[int, object] = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach().clone() if name in own else parameter.detach()
        memo[id(parameter)] = nn.Parameter(values, requires_grad=False)
    return copy.deepcopy(model, memo)
