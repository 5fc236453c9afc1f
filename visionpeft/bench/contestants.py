"""Who takes part: full fine-tuning, the frozen floor, our methods, and those of others."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from visionpeft.bench.others import PACKAGES
from visionpeft.methods.registry import methods
from visionpeft.surgery.adapt import adapt
from visionpeft.surgery.folder import save
from visionpeft.surgery.merge import merge

FULL, FLOOR = "full fine-tuning", "frozen floor"


@dataclass(frozen=True)
class Contestant:
    """A model made ready to train: what a step runs, what merges it, and what saves its adapter into a folder."""

    label: str
    model: nn.Module
    x: Tensor
    optimizer: torch.optim.Optimizer | None
    merge: Callable[[], object] | None
    save: Callable[[Path], object] | None

    @property
    def trainable(self) -> int:
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def loss(self) -> Tensor:
        return self.model(self.x).float().square().mean()

    def step(self) -> None:
        """Forward, backward and the optimizer's update."""
        self.loss().backward()
        if self.optimizer is None:
            self.x.grad = None
        else:
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def file_bytes(self) -> int:
        """Size of the saved adapter's tensors."""
        if self.save is None:
            return 0
        with tempfile.TemporaryDirectory() as folder:
            self.save(Path(folder))
            return sum(file.stat().st_size for file in Path(folder).rglob("*.safetensors"))


def contestant(label: str, model: nn.Module, x: Tensor, rank: int, targets: Sequence[str] | None = None) -> Contestant:
    """Prepare ``model`` (changed in place) for ``label``: a name of :func:`known`, ours also as ``NAME:OPTION=VALUE``.

    ``targets`` is what our methods adapt; None means every Linear and convolution.
    """
    merging = saving = None
    if label == FLOOR:
        model.requires_grad_(False)
        return Contestant(label, model, x.clone().requires_grad_(), None, None, None)
    if label in PACKAGES:
        model, merging, saving = PACKAGES[label].prepare(model, rank)
    elif label != FULL:
        name, options = parsed(label)
        adapt(model, name, targets=list(targets or _roles(model)), **{"rank": rank, **options})
        merging, saving = (lambda: merge(model)), (lambda folder: save(model, folder))
    trained = [p for p in model.parameters() if p.requires_grad]
    return Contestant(label, model, x, torch.optim.AdamW(trained, lr=1e-4, fused=True), merging, saving)


def parsed(label: str) -> tuple[str, dict[str, Any]]:
    """``lora_c:layout=separable`` as a name and its options."""
    name, *given = label.split(":")
    pairs = [option.partition("=") for option in given]
    return name, {key: yaml.safe_load(value) for key, _, value in pairs}


def _roles(model: nn.Module) -> list[str]:
    """The targets that mean every Linear and convolution; a pattern that matches nothing would be an error."""
    kinds = {"linear": nn.Linear, "conv": nn.modules.conv._ConvNd}
    return [role for role, kind in kinds.items() if any(isinstance(m, kind) for m in model.modules())]


def known() -> list[str]:
    """All labels that can take part here: our methods on weights, and the packages that are installed."""
    ours = [name for name in methods() if _adapts_weights(name)]
    return [FULL, FLOOR, *ours, *(label for label, package in PACKAGES.items() if package.installed)]


def _adapts_weights(name: str) -> bool:
    from visionpeft.algebra.method import Method

    return issubclass(methods()[name], Method)
