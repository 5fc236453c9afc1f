"""What ``adapt`` did, as values and as a table."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from visionpeft.algebra.method import Options
from visionpeft.algebra.site import Site
from visionpeft.surgery.fingerprint import base_parameters
from visionpeft.surgery.mount import adapters
from visionpeft.surgery.plan import decide
from visionpeft.surgery.slots import Slot
from visionpeft.surgery.targets import Target

if TYPE_CHECKING:
    from visionpeft.surgery.audit import Audit


class Refusal(NamedTuple):
    path: str
    reason: str


@dataclass
class SiteReport:
    """One adapted site: where, what, how many parameters, and the planned path with the reason."""

    path: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    path_chosen: str = "at first call"
    why: str = "the plan is counted for the shapes of the first input"

    @classmethod
    def of(cls, target: Target, slot: Slot) -> SiteReport:
        if isinstance(slot.site, Site):
            return cls(target.path, slot.site.kind, slot.site.shape, slot.trainable)
        return cls(target.path, "block", (slot.site.width,), slot.trainable, "residual", "added to the block's output")


@dataclass
class Report:
    """Matched, refused and dead targets, and counts: ``trainable`` adapter values, ``total`` base values."""

    method: Options
    sites: list[SiteReport] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    trainable: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        """Adapter values over base values."""
        return self.trainable / max(self.total, 1)

    def counted(self, model: nn.Module, slots: list[tuple[Target, Slot]], audited: Audit | None) -> Report:
        self.trainable = sum(slot.trainable for _, slot in slots)
        self.total = sum(p.numel() for p in base_parameters(model).values())
        if audited is not None:
            for site, (target, slot) in zip(self.sites, slots, strict=True):
                _plan(site, target, slot, audited)
        return self

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Plain text: a line a site, then what was refused and why, then the counts."""
        rows = [
            (s.path or "(the layer)", s.kind, "×".join(map(str, s.shape)), f"{s.parameters:,}", s.path_chosen, s.why)
            for s in self.sites
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines += [f"refused  {r.path}: {r.reason}" for r in self.refused]
        lines.append(
            f"{self.method.name}: {len(self.sites)} sites, {self.trainable:,} trainable values, "
            f"{100 * self.share:.2f} % of {self.total:,}"
        )
        return "\n".join(lines)


def _plan(site: SiteReport, target: Target, slot: Slot, audited: Audit) -> None:
    """Fill in the path that the plan will take for the audited input."""
    if not isinstance(slot.site, Site):
        return
    use = audited[target.weight_path]
    if use.shape is None or use.dtype is None:
        site.path_chosen, site.why = "dense", "the weight is read, so W+ΔW is what its reader sees"
    elif slot.plan != "auto":
        site.path_chosen, site.why = slot.plan, "forced"
    else:
        x = torch.empty(use.shape, dtype=use.dtype, device="meta")
        x.requires_grad_(x.is_floating_point())
        weight = target.module._parameters[target.parameter]
        decision = decide(adapters(target.module).sites[target.parameter], [slot], x, _device(weight))
        site.path_chosen, site.why = decision.path, decision.why


def _device(weight: Tensor | None) -> str:
    """Where the model will run: a model without values is planned for the accelerator, or else the CPU, of here."""
    device = "meta" if weight is None else weight.device.type
    if device == "meta":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device
