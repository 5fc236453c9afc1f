"""``convert``: from any format to any other, ours included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from visionpeft.errors import AdapterFileError, OptionError, unknown
from visionpeft.export.exchange.adopt import Adopted, adopt
from visionpeft.export.exchange.changes import changes, left_out
from visionpeft.export.exchange.limits import FORMS
from visionpeft.export.exchange.lowrank import Budget
from visionpeft.export.exchange.resolve import resolve
from visionpeft.export.exchange.source import Foreign, open_foreign
from visionpeft.export.exchange.twins import plain_twin
from visionpeft.export.exchange.write import Exchanged, write, write_changes
from visionpeft.surgery.about import about, written_about
from visionpeft.surgery.fingerprint import fingerprint
from visionpeft.surgery.folder import META, load
from visionpeft.surgery.ledger import known_to

OURS = "visionpeft"
TARGETS = {OURS: "an adapter folder that `vp.load` puts on the denoiser", **FORMS}
"""What can be converted to."""


def read(
    path: str | Path,
    model: nn.Module,
    folder: str | Path,
    *,
    component: str,
    rank: int | None = None,
    energy: float | None = None,
    metadata: Mapping[str, str] | None = None,
    drop: bool = False,
) -> Adopted:
    """Take a file of another tool over as an adapter folder of ours.

    Args:
        path: the file, or the folder that holds it.
        model: the plain denoiser that it is for; it is left as it is.
        folder: the adapter folder to write.
        component: place of the denoiser in its pipeline, ``unet`` or ``transformer``.
        rank, energy: how much of each change is kept; default: all but rounding.
        metadata: what the folder shall say of itself.
        drop: leave out what no adapter of ours says (norms, biases, text encoders), and list it.

    Raises:
        AdapterFileError: a pickle, a damaged or unknown file, one for another architecture, or (without ``drop``) one
            that holds more than an adapter of ours can say.
    """
    foreign = open_foreign(path)
    found = resolve(foreign, model, component)
    _check_dropped(foreign, found.dropped, drop)
    says = {"converted_from": foreign.form, **_source_says(foreign), **(metadata or {})}
    return adopt(model, found.changes, Path(folder), Budget(rank, energy), says, found.dropped)


def convert(
    source: str | Path,
    to: str,
    output: str | Path,
    model: nn.Module,
    *,
    component: str,
    rank: int | None = None,
    energy: float | None = None,
    metadata: Mapping[str, str] | None = None,
    drop: bool = False,
    inputs: Mapping[str, Any] | None = None,
) -> Exchanged | Adopted:
    """Write an adapter, of ours or of another tool, in another format.

    Args:
        source: an adapter folder of ours, or a file or folder of another tool.
        to: ``visionpeft`` or a format of :func:`visionpeft.export.exchange.write`.
        output: the file or folder to write.
        model: the plain denoiser that the adapter is for; it is left as it is.
        component, rank, energy, metadata, drop, inputs: as for :func:`visionpeft.export.exchange.write`.

    Raises:
        UserError: as for :func:`read` and :func:`visionpeft.export.exchange.write`.
    """
    if to not in TARGETS:
        raise unknown("exchange format", to, TARGETS)
    if known_to(model):
        raise OptionError(f"convert: the network has adapters ({', '.join(known_to(model))}); give the plain one")
    source, budget, more = Path(source), Budget(rank, energy), metadata or {}
    if (source / META).is_file():
        twin = plain_twin(model)
        load(twin, source)
        if to != OURS:
            return write(
                to, output, twin, component=component, rank=rank, energy=energy, metadata=more, drop=drop, inputs=inputs
            )
        beside = left_out(twin)
        _check_dropped(source, beside, drop)
        says = {**more, "converted_from": about(twin, "default", {})["method"]}
        return adopt(model, changes(twin), Path(output), budget, says, beside)
    if to == OURS:
        return read(source, model, output, component=component, rank=rank, energy=energy, metadata=more, drop=drop)
    foreign = open_foreign(source)
    found = resolve(foreign, model, component)
    says = {**_source_says(foreign), "converted_from": foreign.form, "base_fingerprint": fingerprint(model), **more}
    return write_changes(
        to,
        output,
        model,
        found.changes,
        found.dropped,
        says,
        component=component,
        budget=budget,
        drop=drop,
        inputs=inputs,
    )


def _source_says(foreign: Foreign) -> dict[str, Any]:
    """What a file of ours told of itself is told on."""
    known = written_about(foreign.metadata)
    return {key: known[key] for key in ("recipe", "base", "base_licence") if key in known}


def _check_dropped(source: Foreign | Path, dropped: Mapping[str, str], drop: bool) -> None:
    if dropped and not drop:
        path = source if isinstance(source, Path) else source.path
        name, reason = next(iter(dropped.items()))
        more = f" and {len(dropped) - 1} more" if len(dropped) > 1 else ""
        raise AdapterFileError(
            f"{path} holds what an adapter cannot say: {name!r} {reason}{more}. Leave it out with --drop (drop=True)"
        )
