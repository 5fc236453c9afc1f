"""Image classification: cross-entropy on a plain ``nn.Module`` that maps images to class logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torchmetrics import CatMetric

from visionpeft.errors import OptionError
from visionpeft.metrics import Predictions, classifier_metrics
from visionpeft.tasks.base import Prepare, Task
from visionpeft.tasks.optimize import OptimizerOptions


@dataclass(frozen=True)
class ClassifyOptions:
    """What the loss asks for.

    Args:
        label_smoothing: share of the target spread over all classes, in [0, 1).
        mixup: ``alpha`` of the Beta distribution that mixes pairs of images; 0 turns it off.
        channels_last: memory format of weights and images; faster for convolutions on CPU and on tensor cores.
    """

    label_smoothing: float = 0.0
    mixup: float = 0.0
    channels_last: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise OptionError(f"label_smoothing must lie in [0, 1), found {self.label_smoothing}")
        if not 0 <= self.mixup < float("inf"):
            raise OptionError(f"mixup must be a finite number of at least 0, found {self.mixup}")


class ClassifyTask(Task):
    """Trains whatever requires a gradient in ``model`` and measures top-1, top-5 and calibration.

    Args:
        model: images ``(batch, channels, height, width)`` to logits ``(batch, classes)``.
        classes: number of classes, at least two.
        prepare, optimizer, seed: see :class:`Task`.
        options: see :class:`ClassifyOptions`.
        head: module path of the classifier head; its weights may use their own learning rate.

    Logs ``train/loss`` each step, ``val/…`` and ``test/…`` ``loss``, ``top1``, ``top5``, ``ece`` each epoch. After
    ``trainer.test`` the field :attr:`predictions` holds the logits of the whole split.

    Raises:
        OptionError: fewer than two classes.
        StateError: see :class:`Task`.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: int,
        *,
        prepare: Prepare | None = None,
        optimizer: OptimizerOptions | None = None,
        options: ClassifyOptions | None = None,
        head: str | None = None,
        seed: int = 0,
    ) -> None:
        options, heads = options or ClassifyOptions(), () if head is None else (head,)
        last = options.channels_last
        super().__init__(model, prepare=prepare, optimizer=optimizer, head=heads, channels_last=last, seed=seed)
        if classes < 2:
            raise OptionError(f"classification needs at least two classes, found {classes}")
        self.classes, self.options = classes, options
        self.predictions: Predictions | None = None
        self.val_metrics = classifier_metrics(classes, "val/")
        self.test_metrics = classifier_metrics(classes, "test/")
        self.seen_logits, self.seen_labels = CatMetric(), CatMetric()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        targets = one_hot(labels, self.classes).to(images.dtype)
        if self.options.mixup:
            images, targets = _mix(images, targets, self.options.mixup)
        return self.log_training(cross_entropy(self(images), targets, label_smoothing=self.options.label_smoothing))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._measure(batch, self.val_metrics, "val/loss")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        logits = self._measure(batch, self.test_metrics, "test/loss")
        self.seen_logits.update(logits)
        self.seen_labels.update(batch[1])

    def on_test_epoch_end(self) -> None:
        self.predictions = Predictions(self.seen_logits.compute(), self.seen_labels.compute().long())
        self.seen_logits.reset()
        self.seen_labels.reset()

    def _measure(self, batch: tuple[Tensor, Tensor], metrics: Any, loss_name: str) -> Tensor:
        images, labels = batch
        logits = self(images).float()
        metrics.update(logits.softmax(1), labels)
        self.log(loss_name, cross_entropy(logits, labels), batch_size=len(labels), sync_dist=True)
        self.log_dict(metrics)
        return logits


def _mix(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Mixup (Zhang et al. 2018): each image and its target with those of a random partner, one share a batch."""
    share = torch.distributions.Beta(alpha, alpha).sample().to(images)
    partner = torch.randperm(len(images), device=images.device)
    return share * images + (1 - share) * images[partner], share * targets + (1 - share) * targets[partner]
