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
from visionpeft.surgery.targets import weights_of


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
    listed = weights_of(network.model)
    weights, total = sum(prod(w.site.shape) for w in listed), sum(p.numel() for p in network.model.parameters())
    patterns = ["block"] if isinstance(chosen, BlockMethod) and targets == ["*"] else targets
    report = adapt(network.model, chosen, targets=patterns, example=network.example_input())
    lines = [Line(s.path, s.kind, s.shape, s.parameters, s.path_chosen, s.why, True) for s in report.sites]
    shapes = {weight.path: weight.site for weight in listed}
    for path, reason in report.refused:
        site = shapes.get(path.partition("[")[0])
        lines.append(Line(path, site.kind if site else "", site.shape if site else (), 0, "refused", reason, False))
    return Coverage(backbone, method, tuple(lines), weights, total, chosen.mergeable)
