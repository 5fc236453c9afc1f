"""Coverage: which weights of a network a method adapts, by which path, and what the rest is refused for."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from visionpeft.algebra.method import BlockMethod
from visionpeft.backbones import load
from visionpeft.recipe.methods import build_method
from visionpeft.recipe.sections import Method
from visionpeft.surgery.adapt import adapt
from visionpeft.surgery.audit import Audit, audit
from visionpeft.surgery.report import Refusal, Report
from visionpeft.surgery.roles import Weight
from visionpeft.surgery.targets import Target, resolve, weights_of


@dataclass(frozen=True)
class Line:
    """One weight (or one slice of it, or a block): ``plan`` and ``why`` hold the reason if it is not adapted."""

    path: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    plan: str
    why: str
    adapted: bool


@dataclass(frozen=True)
class Coverage:
    """Lines and counts; ``weights`` are the values in weights with two or more axes, ``total`` all values."""

    backbone: str
    method: str
    lines: tuple[Line, ...]
    weights: int
    total: int
    mergeable: bool

    @property
    def adapted(self) -> int:
        """Values in the adapted weights (none for a method that acts on blocks)."""
        return sum(prod(line.shape) for line in self.lines if line.adapted and line.kind != "block")

    @property
    def share(self) -> float:
        """Share of the values in weights with two or more axes that is adapted and merges exactly."""
        return self.adapted / self.weights if self.mergeable and self.weights else 0.0

    @property
    def parameters(self) -> int:
        """Trainable values of the adapter."""
        return sum(line.parameters for line in self.lines if line.adapted)

    def summary(self) -> str:
        """Two sentences: what the adapter costs, and how much of the network it reaches."""
        cost = f"{self.parameters:,} adapter parameters, {self.parameters / max(self.total, 1):.2%} of {self.total:,}."
        if not self.mergeable:
            return f"{cost} {self.method} acts on activations: it is kept as a module and not merged."
        return (
            f"{cost} {self.share:.1%} of the {self.weights:,} values in weights with ≥ 2 axes adapt and merge exactly."
        )


def coverage(
    backbone: str, method: str, options: dict[str, Any], targets: list[str], image_size: int | None = None, **build: Any
) -> Coverage:
    """Adapt a network of shapes without values (the meta device) and say what happened to each weight.

    Args:
        backbone: ``family/model``.
        method: name of a method, with its ``options``.
        targets: patterns; for a method that acts on blocks ``["*"]`` means every block.
        image_size: pixels a side; default as published.
        **build: passed to the network's constructor.

    Raises:
        UserError: an unknown name, an option that does not fit, or a pattern that matches nothing.
    """
    chosen = build_method(Method(name=method, **options))
    network = load(backbone, pretrained=False, device="meta", image_size=image_size, **build)
    model, example = network.model, network.example_input()
    listed, total = weights_of(model), sum(p.numel() for p in model.parameters())
    weights = sum(prod(weight.site.shape) for weight in listed)
    if isinstance(chosen, BlockMethod):
        report = adapt(model, chosen, targets=["block"] if targets == ["*"] else targets, example=example)
        lines = _adapted(report)
    else:
        audited = audit(model, example)
        live, dead = _by_use(resolve(model, targets), audited)
        report = adapt(model, chosen, targets=live, example=audited)
        lines = _every(listed, _adapted(report), [*report.refused, *dead])
    return Coverage(backbone, method, tuple(lines), weights, total, chosen.mergeable)


def _by_use(targets: list[Target], audited: Audit) -> tuple[list[str], list[Refusal]]:
    """Paths of targets that the network uses, and the others with the reason: here they are shown, no error."""
    dead = [target for target in targets if audited[target.weight_path].word == "dead"]
    reason = "dead: neither called nor read when the network runs"
    return [t.path for t in targets if t not in dead], [Refusal(t.path, reason) for t in dead]


def _adapted(report: Report) -> list[Line]:
    return [Line(s.path, s.kind, s.shape, s.parameters, s.path_chosen, s.why, True) for s in report.sites]


def _every(listed: list[Weight], adapted: list[Line], refused: list[Refusal]) -> list[Line]:
    """A line for every weight, in the network's order: adapted, refused, or not asked for."""
    sites = {weight.path: weight.site for weight in listed}
    lines = list(adapted)
    for path, reason in refused:
        site = sites[_whole(path)]
        lines.append(Line(path, site.kind, site.shape, 0, "refused", reason, False))
    mentioned = {_whole(line.path) for line in lines}
    for path, site in sites.items():
        if path not in mentioned:
            lines.append(Line(path, site.kind, site.shape, 0, "frozen", "not among the targets", False))
    order = list(sites)
    return sorted(lines, key=lambda line: order.index(_whole(line.path)))


def _whole(path: str) -> str:
    """The path of the weight, of which ``path`` may be a slice."""
    return path.partition("[")[0]
