"""``write``: an adapter of ours as a file of another tool, checked by that tool before it takes its place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from visionpeft.errors import OptionError, SiteError
from visionpeft.export.exchange.changes import Change, changes, left_out, stored_weight
from visionpeft.export.exchange.encode import carries_magnitude, encode
from visionpeft.export.exchange.inputs import example_inputs
from visionpeft.export.exchange.limits import check_denoiser, check_form, why_not
from visionpeft.export.exchange.lowrank import ROUNDING, Budget, Fit, fitted, total
from visionpeft.export.exchange.names import by_flat_name, flat
from visionpeft.export.exchange.place import PEFT_CONFIG, PEFT_WEIGHTS, put
from visionpeft.export.exchange.tools import check_installed
from visionpeft.export.exchange.verify import Match, verify
from visionpeft.surgery.about import KEY, about


@dataclass(frozen=True)
class Exchanged:
    """What was written.

    Attributes:
        path: the file, or for peft the folder.
        form: its format.
        layers: how well each layer is said, in module order.
        dropped: weight → why it is not in the file.
        error: relative error of all layers together (of those that were written).
        match: what the tool that the file is for computes with it.
    """

    path: Path
    form: str
    layers: tuple[Fit, ...]
    dropped: dict[str, str]
    error: float
    match: Match

    @property
    def exact(self) -> bool:
        """Whether nothing is missing but rounding."""
        return not self.dropped and self.error <= ROUNDING

    @property
    def bytes(self) -> int:
        """Size on disk."""
        files = self.path.iterdir() if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files)


def write(
    form: str,
    path: str | Path,
    model: nn.Module,
    *,
    component: str,
    name: str = "default",
    rank: int | None = None,
    energy: float | None = None,
    metadata: Mapping[str, str] | None = None,
    drop: bool = False,
    inputs: Mapping[str, Any] | None = None,
) -> Exchanged:
    """Write an adapter in a format of other tools, let the tool load it, and compare.

    LoRA and what else is a product of two thin factors keeps its factors. Everything else is written by the truncated
    SVD of its ΔW, layer by layer; ``lycoris`` carries it as it is. Without ``rank`` and ``energy`` nothing is lost but
    rounding, whatever rank that takes.

    Args:
        form: ``diffusers-lora``, ``peft``, ``kohya`` or ``lycoris``.
        path: the ``.safetensors`` file to write; for peft the folder.
        model: the adapted denoiser; it is left as it is.
        component: its place in the pipeline, ``unet`` or ``transformer``.
        rank: at most this many components a layer.
        energy: or: as many as hold this share of the squared singular values, in (0, 1].
        metadata: what else the file shall say, such as ``recipe``, ``base`` and ``base_licence``.
        drop: leave out what the format cannot say, and list it, instead of refusing.
        inputs: keyword arguments of one forward pass to compare on; default: random ones of a fixed seed.

    Raises:
        UserError: an unknown format, one that cannot say the adapter, or that no tool loads into this network; the
            tool is not installed; an option out of range; the file cannot be written.
        ParityError: the tool computes something else. Nothing is left at ``path`` then that was not there before.
    """
    found, more = changes(model, name), metadata or {}
    return write_changes(
        form,
        path,
        model,
        found,
        left_out(model, name),
        about(model, name, more),
        component=component,
        budget=Budget(rank, energy),
        drop=drop,
        inputs=inputs,
        name=name,
    )


def write_changes(
    form: str,
    path: str | Path,
    model: nn.Module,
    found: Sequence[Change],
    beside: Mapping[str, str],
    says: Mapping[str, Any],
    *,
    component: str,
    budget: Budget,
    drop: bool = False,
    inputs: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Exchanged:
    """Write changes of a network's weights; see :func:`write`.

    Args:
        found: the changes.
        beside: what belongs to them and no format holds: name → reason.
        says: what the header of the file tells.
        name: the adapter of ``model`` that makes these changes, to compare with; None compares with the base they are
            folded into.
    """
    check_form(form)
    path = _checked(form, Path(path))
    check_denoiser(form, model)
    check_installed(form)
    said, dropped = _sayable(form, model, found, beside, drop)
    written, fits = _fit(form, model, said, budget)
    error = total(fits)
    encoded = encode(form, written, model, component)
    content = replace(encoded, metadata={**encoded.metadata, KEY: json.dumps({**says, "error": error})})
    standard = name if not dropped and error <= ROUNDING else None
    arguments = example_inputs(model) if inputs is None else inputs

    def check(place: Path) -> Match:
        return verify(form, place, model, written, component, arguments, standard)

    return Exchanged(path, form, tuple(fits), dropped, error, put(path, content, says.get("base"), check))


def _checked(form: str, path: Path) -> Path:
    """The path, if it ends as the format's files do."""
    if form == "peft" and (path.suffix == ".safetensors" or path.is_file()):
        raise OptionError(f"{path}: peft is a folder, with {PEFT_WEIGHTS} and {PEFT_CONFIG} in it")
    if form != "peft" and path.suffix != ".safetensors":
        raise OptionError(f"{path}: {form} is written to a file that ends in .safetensors")
    return path


def _sayable(
    form: str, model: nn.Module, found: Sequence[Change], beside: Mapping[str, str], drop: bool
) -> tuple[list[Change], dict[str, str]]:
    """The changes that the format can say, and why not the others.

    Raises:
        SiteError: there are others and they may not be dropped, or there is nothing left.
    """
    dropped = dict(beside)
    names = by_flat_name(model)
    said = []
    for change in found:
        reason = why_not(form, model, change)
        if reason is None and form in ("kohya", "lycoris") and flat(change.module) not in names:
            reason = f"{form} writes dots as underscores, and another layer has the same name then"
        if reason is None:
            said.append(change)
        else:
            dropped[change.path] = reason
    if dropped and not drop:
        lines = "; ".join(f"{path}: {reason}" for path, reason in list(dropped.items())[:3])
        more = f"; and {len(dropped) - 3} more" if len(dropped) > 3 else ""
        raise SiteError(
            f"--to {form} cannot say {len(dropped)} of {len(found)} changes ({lines}{more}). "
            "Leave them out with --drop (drop=True), or take another format"
        )
    if not said:
        raise SiteError(f"--to {form} cannot say any of the {len(found)} changes: {next(iter(dropped.values()), '')}")
    return said, dropped


def _fit(form: str, model: nn.Module, said: list[Change], budget: Budget) -> tuple[list[Change], list[Fit]]:
    if not (carries_magnitude(form) and all(_keeps_magnitude(change) for change in said)):
        said = [_without_gain(change, model) for change in said]
    if form == "lycoris" and budget == Budget():
        return _as_they_are(said, budget)
    pairs = [fitted(change, budget) for change in said]
    fits = [_with_gain(before, after, fit, model) for before, (after, fit) in zip(said, pairs, strict=True)]
    return [change for change, _ in pairs], fits


def _as_they_are(said: list[Change], budget: Budget) -> tuple[list[Change], list[Fit]]:
    """Thin products as products, all else dense."""
    kept = [c if budget.keeps(c) else replace(c, product=None, dense=c.additive()) for c in said]
    return kept, [Fit(change.path, change.rank, change.additive().norm().item(), 0.0) for change in kept]


def _keeps_magnitude(change: Change) -> bool:
    return change.magnitude is not None and change.site.kind != "embedding"  # peft takes the norm of the other axis


def _without_gain(change: Change, model: nn.Module) -> Change:
    """The same change without DoRA's form: W′ − W as one dense change."""
    if change.magnitude is None:
        return change
    return replace(change, product=None, dense=change.delta(stored_weight(model, change)), magnitude=None)


def _with_gain(before: Change, after: Change, fit: Fit, model: nn.Module) -> Fit:
    """Under a gain the error is that of the whole change, which the singular values do not tell."""
    if after.magnitude is None:
        return fit
    stored = stored_weight(model, before)
    wanted = before.delta(stored)
    error = (after.delta(stored) - wanted).norm().item() if fit.error else 0.0
    return replace(fit, norm=wanted.norm().item(), error=error)
