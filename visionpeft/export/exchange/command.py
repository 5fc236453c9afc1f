"""``visionpeft convert``: from paths to paths."""

from __future__ import annotations

from pathlib import Path

from visionpeft.errors import unknown
from visionpeft.export.exchange.adopt import Adopted
from visionpeft.export.exchange.base import open_base
from visionpeft.export.exchange.convert import OURS, TARGETS, convert
from visionpeft.export.exchange.lowrank import Budget
from visionpeft.export.exchange.write import Exchanged


def convert_files(
    source: Path,
    to: str,
    base: str,
    output: Path | None = None,
    *,
    component: str | None = None,
    rank: int | None = None,
    energy: float | None = None,
    drop: bool = False,
    licence: str | None = None,
) -> Exchanged | Adopted:
    """Convert an adapter for the denoiser of a base.

    Args:
        source: an adapter folder of ours, or a file or folder of another tool.
        to: the format; see :data:`visionpeft.export.exchange.TARGETS`.
        base: as for :func:`visionpeft.export.exchange.base.open_base`.
        output: default: beside the source, named after the format.
        licence: of the base; default: as its model card says.
        component, rank, energy, drop: as for :func:`visionpeft.export.exchange.convert`.

    Raises:
        UserError: as for :func:`visionpeft.export.exchange.convert`.
    """
    if to not in TARGETS:
        raise unknown("exchange format", to, TARGETS)
    Budget(rank, energy)  # said before a large base is read
    opened = open_base(base, component)
    says = opened.says | ({"base_licence": licence} if licence else {})
    place = output or beside(source, to)
    return convert(
        source,
        to,
        place,
        opened.denoiser,
        component=opened.component,
        rank=rank,
        energy=energy,
        metadata=says,
        drop=drop,
    )


def beside(source: Path, to: str) -> Path:
    """``style.safetensors`` → ``style-kohya.safetensors``; for folders ``style-peft``."""
    ending = "" if to in (OURS, "peft") else ".safetensors"
    return source.with_name(f"{source.stem if source.is_file() else source.name}-{to}{ending}")
