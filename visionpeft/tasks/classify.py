"""Image classification: cross-entropy on a plain ``nn.Module`` that maps images to class logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torchmetrics import CatMetric

from visionpeft.errors import OptionError, StateError
from visionpeft.metrics import Predictions, classifier_metrics
from visionpeft.tasks.frozen import check_finite, hold_batch_norm, moving_state
from visionpeft.tasks.optimize import OptimizerOptions, build_optimizer


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


class ClassifyTask(lightning.LightningModule):
    """Trains whatever requires a gradient in ``model`` and measures top-1, top-5 and calibration.

    Args:
        model: images ``(batch, channels, height, width)`` to logits ``(batch, classes)``.
        classes: number of classes, at least two.
        prepare: called once with the model in ``configure_model``, before sharding and compiling: the place to freeze
            and adapt it in place. It must leave something trainable.
        optimizer: see :class:`OptimizerOptions`.
        options: see :class:`ClassifyOptions`.
        head: module path of the classifier head; its weights may use their own learning rate.
        seed: with the step and the rank it seeds mixup and dropout of every training step, so a resumed run continues
            bit for bit.

    Logs ``train/loss`` each step, ``val/…`` and ``test/…`` ``loss``, ``top1``, ``top5``, ``ece`` each epoch. After
    ``trainer.test`` the field :attr:`predictions` holds the logits of the whole split. A frozen BatchNorm stays in eval
    mode. Checkpoints hold only :func:`moving_state`, the optimizer and its schedule.

    Raises:
        OptionError: fewer than two classes.
        StateError: the base holds NaN, nothing is trainable, the loss is not finite, or a checkpoint holds other
            weights than this run trains.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: int,
        *,
        prepare: Callable[[nn.Module], object] | None = None,
        optimizer: OptimizerOptions | None = None,
        options: ClassifyOptions | None = None,
        head: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if classes < 2:
            raise OptionError(f"classification needs at least two classes, found {classes}")
        self.strict_loading = False
        self.model, self.classes, self.head, self.seed = model, classes, head, seed
        self.optimizer_options, self.options = optimizer or OptimizerOptions(), options or ClassifyOptions()
        self.predictions: Predictions | None = None
        self._prepare = prepare
        self._is_prepared = False
        self.val_metrics = classifier_metrics(classes, "val/")
        self.test_metrics = classifier_metrics(classes, "test/")
        self.seen_logits, self.seen_labels = CatMetric(), CatMetric()

    def configure_model(self) -> None:
        if self._is_prepared:
            return
        check_finite(self.model)
        if self._prepare is not None:
            self._prepare(self.model)
        if self.options.channels_last:
            self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self._is_prepared = True

    def configure_optimizers(self) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = build_optimizer(self.model, self.optimizer_options, steps, self.head)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train(self, mode: bool = True) -> ClassifyTask:
        super().train(mode)
        if mode:
            hold_batch_norm(self.model)
        return self

    def on_train_start(self) -> None:
        self.train()  # Lightning takes the modes as it finds them

    def forward(self, images: Tensor) -> Tensor:
        if self.options.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self.model(images)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(hash((self.seed, self.global_step, self.global_rank)) % 2**63)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        targets = one_hot(labels, self.classes).to(images.dtype)
        if self.options.mixup:
            images, targets = _mix(images, targets, self.options.mixup)
        loss = cross_entropy(self(images), targets, label_smoothing=self.options.label_smoothing)
        if not loss.isfinite():
            lr = self.trainer.optimizers[0].param_groups[0]["lr"]
            raise StateError(
                f"the training loss became {loss.item()} at step {self.global_step} with learning rate {lr:.3g}: lower "
                "trainer.lr, lengthen trainer.warmup_steps, or look for broken images"
            )
        self.log("train/loss", loss, prog_bar=True)
        return loss

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = moving_state(self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.configure_model()
        found, wanted = set(checkpoint["state_dict"]), set(moving_state(self))
        if found != wanted:
            raise StateError(
                f"the checkpoint holds {len(found)} tensors and this run trains {len(wanted)}; in one only: "
                f"{sorted(found ^ wanted)[:4]}. Resume with the recipe that wrote it"
            )

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
