"""AdamW over the trainable parameters only, with warm-up and a cosine or constant schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from visionpeft.errors import OptionError, StateError


@dataclass(frozen=True)
class OptimizerOptions:
    """How the trainable parameters move.

    Args:
        lr: peak learning rate.
        head_lr: peak learning rate of the head's own weights beside others that train. ``None`` uses ``lr``, and so
            does a head that trains alone.
        weight_decay: decoupled decay of weights with two or more axes. Vectors (biases, norms, gains, magnitudes) are
            never decayed: pulling a gain that starts at one towards zero is not regularisation.
        schedule: ``cosine`` to zero at the last step, or ``constant``.
        warmup_steps: linear rise to the peak; must be shorter than the run.
    """

    lr: float = 1e-3
    head_lr: float | None = None
    weight_decay: float = 0.01
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if self.schedule not in ("cosine", "constant"):
            raise OptionError(f"schedule must be 'cosine' or 'constant', found {self.schedule!r}")
        for name in ("lr", "head_lr", "weight_decay", "warmup_steps"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise OptionError(f"{name} must be a finite number of at least 0, found {value!r}")


def build_optimizer(
    model: nn.Module, options: OptimizerOptions, total_steps: int, heads: Iterable[str] = ()
) -> tuple[Optimizer, LambdaLR]:
    """AdamW for the parameters that require a gradient, and its schedule (to be stepped once a training step).

    Args:
        model: the adapted model.
        options: see :class:`OptimizerOptions`.
        total_steps: length of the run; the cosine ends there.
        heads: module paths of the head, whose own weights use ``head_lr``; factors of an adapter inside it do not.

    Raises:
        StateError: nothing is trainable.
        OptionError: the warm-up is as long as the run.
    """
    groups = _parameter_groups(model, options, tuple(heads))
    if not groups:
        raise StateError("nothing to train: every parameter is frozen. Name a method, or train_also: [head]")
    optimizer = AdamW(groups, lr=options.lr)
    return optimizer, LambdaLR(optimizer, _factor(options, total_steps))


def _parameter_groups(model: nn.Module, options: OptimizerOptions, heads: tuple[str, ...]) -> list[dict]:
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    of_heads = {name for name in trainable if any(_belongs(name, head) for head in heads)}
    head_lr = options.lr if options.head_lr is None or of_heads == set(trainable) else options.head_lr
    groups: dict[tuple[float, float], list] = {}
    for name, parameter in trainable.items():
        lr = head_lr if name in of_heads else options.lr
        decay = options.weight_decay if parameter.ndim >= 2 else 0.0
        groups.setdefault((lr, decay), []).append(parameter)
    return [{"params": ps, "lr": lr, "weight_decay": decay} for (lr, decay), ps in groups.items()]


def _belongs(name: str, head: str) -> bool:
    return name.startswith(f"{head}.") and ".adapters." not in name


def _factor(options: OptimizerOptions, total_steps: int) -> Callable[[int], float]:
    warmup = options.warmup_steps
    if warmup and warmup >= total_steps:
        raise OptionError(f"warmup_steps is {warmup}, but the run has only {total_steps} steps: shorten the warm-up")

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if options.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total_steps - warmup)))

    return factor
