"""Does the tool that a file is for compute what the file was made from? Asked of every layer, then of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionpeft.algebra.site import Site
from visionpeft.export.exchange.changes import Change, stored_weight
from visionpeft.export.exchange.tools import load, tool_of
from visionpeft.export.exchange.twins import adapted_twin, plain_twin
from visionpeft.export.parity import ParityError

TOLERANCE = 2e-3
"""Largest difference allowed, as a fraction of what the adapter changes …"""
FLOOR = 1e-5
"""… or of the output itself, below which float32 cannot tell."""


@dataclass(frozen=True)
class Match:
    """The outputs of the network with the file loaded by its tool, beside ours, for one input.

    Attributes:
        tool: which tool, and its version.
        layers: how many layers were compared one by one as well.
        difference: the largest difference of the outputs.
        effect: the largest change that the adapter makes to the output.
    """

    tool: str
    layers: int
    difference: float
    effect: float

    def __str__(self) -> str:
        return (
            f"loaded with {self.tool}: {self.layers} layers agree; outputs differ by at most {self.difference:.1e}, "
            f"where the adapter changes them by up to {self.effect:.1e}"
        )


@torch.no_grad()
def verify(
    form: str,
    path: Path,
    model: nn.Module,
    written: Sequence[Change],
    component: str,
    inputs: Mapping[str, Any],
    name: str | None = None,
) -> Match:
    """Load a written file with its tool and compare.

    Args:
        written: what the file is meant to say.
        inputs: keyword arguments of one forward pass.
        name: the adapter of ``model`` that the file says all of, so that the adapted network itself is the standard;
            None takes the base with what was written folded in.

    Raises:
        ParityError: a layer, or the network, computes something else.
    """
    base, plain = plain_twin(model), plain_twin(model)
    theirs = load(form, path, plain, component)
    for change in written:
        _check_layer(change, base, plain, form)
    before = output(base, inputs)
    ours = adapted_twin(model, name) if name is not None else _folded(base, written)
    wanted, found = output(ours, inputs), output(theirs, inputs)
    difference, effect = _largest(found - wanted), _largest(wanted - before)
    match = Match(tool_of(form), len(written), difference, effect)
    if not difference <= TOLERANCE * effect + FLOOR * _largest(wanted):  # also catches NaN
        raise ParityError(f"the {form} file says something else than the adapter: {match}")
    return match


def output(denoiser: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """What a denoiser of diffusers predicts."""
    return denoiser(**inputs, return_dict=False)[0].float()


def _check_layer(change: Change, base: nn.Module, theirs: nn.Module, form: str) -> None:
    weight = stored_weight(base, change)
    x = _example(change.site, weight)
    before = base.get_submodule(change.module)(x)
    found = theirs.get_submodule(change.module)(x) - before
    wanted = change.site.op(x, change.site.to_native(change.delta(weight)).to(weight.dtype))
    missing = (found - wanted).norm()
    if not missing <= TOLERANCE * wanted.norm() + FLOOR * before.norm():
        share = (missing / wanted.norm()).item()
        raise ParityError(f"{tool_of(form)} computes {change.path} otherwise: off by {share:.1%} of the layer's change")


def _example(site: Site, weight: Tensor) -> Tensor:
    """A small random input of a layer, always the same."""
    random = torch.Generator().manual_seed(0)
    if site.kind == "embedding":
        return torch.randint(site.inp, (4,), generator=random).to(weight.device)
    if site.conv is None:
        shape: tuple[int, ...] = (4, site.inp)
    else:
        sides = (d * (k - 1) + 4 for d, k in zip(site.conv.dilation, site.kernel, strict=True))
        shape = (1, site.inp * site.groups, *sides)
    return torch.randn(shape, generator=random).to(weight.device, weight.dtype)


def _folded(base: nn.Module, written: Sequence[Change]) -> nn.Module:
    """The base with the changes added to its weights (``base`` itself, whose memory is not touched)."""
    for change in written:
        weight = stored_weight(base, change)
        native = change.site.to_native(change.delta(weight))
        module = base.get_submodule(change.module)
        module._parameters[change.parameter] = nn.Parameter((weight + native).to(weight.dtype), requires_grad=False)
    return base


def _largest(t: Tensor) -> float:
    return t.abs().max().item()
