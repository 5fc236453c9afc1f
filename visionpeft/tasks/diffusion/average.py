"""A running mean of the trained weights, which is what is validated, tested and kept."""

from __future__ import annotations

from typing import Any

import lightning
from diffusers.training_utils import EMAModel
from torch import nn


class WeightAverage:
    """Exponential moving average of what trains in a model.

    Args:
        model: as it will be trained: adapted, frozen elsewhere.
        decay: of the mean a step; it grows towards this value over the first steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._mean = EMAModel(self._trained, decay=decay, use_ema_warmup=True, power=0.75)
        self._seen = 0
        self._shown = False

    def follow(self, trainer: lightning.Trainer) -> None:
        """Take in the weights after an optimizer step; nothing between steps of accumulated gradients."""
        if trainer.global_step > self._seen:
            self._seen = trainer.global_step
            self._mean.to(self._trained[0].device)
            self._mean.step(self._trained)

    def show(self) -> None:
        """Put the mean in the place of the weights until :meth:`hide`."""
        self._mean.to(self._trained[0].device)
        self._mean.store(self._trained)
        self._mean.copy_to(self._trained)
        self._shown = True

    def hide(self) -> None:
        """Put the weights back."""
        if self._shown:
            self._mean.restore(self._trained)
            self._shown = False

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self._mean.state_dict(), "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean.load_state_dict(state["mean"])
        self._seen = state["seen"]
