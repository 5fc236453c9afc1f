"""``convert``: from any format to any other, ours included."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from visionpeft.errors import AdapterFileError, OptionError, unknown
from visionpeft.export.exchange.adopt import Adopted, adopt
from visionpeft.export.exchange.changes import Change, changes, left_out
from visionpeft.export.exchange.limits import FORMS
from visionpeft.export.exchange.lowrank import Budget
from visionpeft.export.exchange.resolve import resolve
from visionpeft.export.exchange.source import open_foreign
from visionpeft.export.exchange.twins import plain_twin
from visionpeft.export.exchange.write import Exchanged, write_changes
from visionpeft.surgery.about import about, written_about
from visionpeft.surgery.fingerprint import fingerprint
from visionpeft.surgery.folder import META, MODULES, load, read_meta, read_tensors
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
    done = convert(
        path,
        OURS,
        folder,
        model,
        component=component,
        rank=rank,
        energy=energy,
        metadata=metadata,
        drop=drop,
    )
    assert isinstance(done, Adopted)
    return done


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
    source, budget = Path(source), Budget(rank, energy)
    found = (_ours if (source / META).is_file() else _foreign)(source, model, component, metadata or {})
    if to == OURS:
        _check_dropped(source, found.dropped, drop)
        says = {key: value for key, value in found.says.items() if key not in ("method", "options")}
        return adopt(model, found.changes, Path(output), budget, says, found.dropped)
    return write_changes(
        to,
        output,
        found.network,
        found.changes,
        found.dropped,
        found.says,
        component=component,
        budget=budget,
        drop=drop,
        inputs=inputs,
        name=found.name,
    )


class _Found(NamedTuple):
    """An adapter as changes of a network.

    Args:
        network: the plain one, or one with the adapter ``name`` on it.
        changes: what the adapter does.
        dropped: what it holds beyond that: name → reason.
        says: what its file tells, and where it comes from.
    """

    network: nn.Module
    changes: list[Change]
    dropped: Mapping[str, str]
    says: dict[str, Any]
    name: str | None = None


def _ours(source: Path, model: nn.Module, component: str, more: Mapping[str, str]) -> _Found:
    trained = read_tensors(source, read_meta(source), MODULES)  # beside the adapter: loading overwrites it
    twin = plain_twin(model, trained.keys())
    load(twin, source)
    says = about(twin, "default", more)
    return _Found(twin, changes(twin), left_out(twin), {**says, "converted_from": says["method"]}, "default")


def _foreign(source: Path, model: nn.Module, component: str, more: Mapping[str, str]) -> _Found:
    foreign = open_foreign(source)
    found, known = resolve(foreign, model, component), written_about(foreign.metadata)
    told = {key: known[key] for key in ("recipe", "base", "base_licence") if key in known}
    says = {"base_fingerprint": fingerprint(model), "converted_from": foreign.form, **told, **more}
    return _Found(model, found.changes, found.dropped, says)


def _check_dropped(source: Path, dropped: Mapping[str, str], drop: bool) -> None:
    if dropped and not drop:
        name, reason = next(iter(dropped.items()))
        more = f" and {len(dropped) - 1} more" if len(dropped) > 1 else ""
        raise AdapterFileError(
            f"{source} holds what an adapter cannot say: {name!r} {reason}{more}. Leave it out with --drop (drop=True)"
        )
