"""Segmentation in 2D and 3D: overlap losses on crops in training, whole cases in windows when measuring."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionpeft.errors import OptionError
from visionpeft.metrics.segmentation import Scores, dice_by_class, score_case
from visionpeft.tasks.base import Prepare, Task
from visionpeft.tasks.optimize import OptimizerOptions
from visionpeft.tasks.segment_losses import LossName, SegmentLoss, check_loss
from visionpeft.tasks.windows import divisor_of, explained_refusal, predict_probabilities


@dataclass(frozen=True)
class SegmentOptions:
    """What is minimised, and how a whole case is predicted.

    Args:
        loss: see :class:`SegmentLoss`.
        class_weights: see :class:`SegmentLoss`.
        deep_supervision: see :class:`SegmentLoss`.
        window: extents of the sliding window; ``None`` predicts a case at once, padded as the network needs it.
        overlap: share of a window that the next one covers again, in [0, 1).
        flips: average predictions over all mirror images of a case (4 passes in 2D, 8 in 3D).
        channels_last: memory format of weights and images; faster for convolutions on CPU and on tensor cores.
    """

    loss: LossName = "dice_ce"
    class_weights: tuple[float, ...] | None = None
    deep_supervision: bool = True
    window: tuple[int, ...] | None = None
    overlap: float = 0.5
    flips: bool = False
    channels_last: bool = False

    def __post_init__(self) -> None:
        check_loss(self.loss, self.class_weights)
        if self.window is not None and (len(self.window) not in (2, 3) or min(self.window) < 1):
            raise OptionError(f"window needs two or three positive extents, found {list(self.window)}")
        if not 0 <= self.overlap < 1:
            raise OptionError(f"overlap must lie in [0, 1), found {self.overlap}")


class SegmentTask(Task):
    """Trains whatever requires a gradient in ``model`` on crops and measures whole cases.

    A training batch is ``(images (B, C, *spatial), masks (B, *spatial))``, an evaluation batch one case:
    ``(image (1, C, *spatial), mask (1, *spatial), index)``. Masks are int64, 0 is the background.

    Args:
        model: images to class maps ``(B, K, *spatial)``, or to several of them (see :func:`class_maps`).
        classes: the K names, background first.
        prepare, optimizer, seed: see :class:`Task`.
        options: see :class:`SegmentOptions`.
        head: module paths of what makes the class maps; these weights may use their own learning rate.
        spacing: the voxel sides in mm of the case with a given index; ``None`` measures distances in voxels.

    Logs ``train/loss`` each step; ``val/loss``, ``val/dice``, ``test/loss`` and ``test/dice`` each epoch (Dice: mean
    over foreground classes and cases). After ``trainer.test`` the field :attr:`scores` holds the figures of every
    case, and :attr:`tested` their indices, in the same order.

    Raises:
        OptionError: fewer than two classes, class weights of another number, or crops the network refuses.
        StateError: see :class:`Task`.
    """

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[str],
        *,
        prepare: Prepare | None = None,
        optimizer: OptimizerOptions | None = None,
        options: SegmentOptions | None = None,
        head: str | Iterable[str] | None = None,
        seed: int = 0,
        spacing: Callable[[int], Sequence[float]] | None = None,
    ) -> None:
        options = options or SegmentOptions()
        heads, last = (head,) if isinstance(head, str) else tuple(head or ()), options.channels_last
        super().__init__(model, prepare=prepare, optimizer=optimizer, head=heads, channels_last=last, seed=seed)
        if len(classes) < 2:
            raise OptionError(f"segmentation needs a background and at least one more class, found {list(classes)}")
        self.classes, self.options, self.spacing = tuple(classes), options, spacing
        self.scores: Scores | None = None
        self.tested: tuple[int, ...] = ()
        self._loss = SegmentLoss(
            options.loss,
            classes=len(classes),
            class_weights=options.class_weights,
            deep_supervision=options.deep_supervision,
        )
        self._divisor: int | None = None
        self._seen: list[tuple[int, Scores]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, masks = batch
        with explained_refusal(self, images, images.shape[2:]):
            output = self(images)
        return self.log_training(self._loss(output, masks))

    def validation_step(self, batch: tuple[Tensor, Tensor, int], batch_idx: int) -> None:
        self._measure(batch, "val")

    def on_test_epoch_start(self) -> None:
        self._seen = []

    def test_step(self, batch: tuple[Tensor, Tensor, int], batch_idx: int) -> None:
        prediction, index = self._measure(batch, "test"), int(batch[2])
        mask = batch[1][0].cpu()
        spacing = (1.0,) * mask.ndim if self.spacing is None else tuple(self.spacing(index))
        self._seen.append((index, score_case(prediction, mask, self.classes, spacing)))

    def on_test_epoch_end(self) -> None:
        self.tested = tuple(index for index, _ in self._seen)
        self.scores = Scores.joined([scores for _, scores in self._seen])
        self._seen = []

    def predict_case(self, image: Tensor) -> Tensor:
        """Probabilities ``(1, K, *spatial)`` of a case ``(1, C, *spatial)``, float32 on the CPU; sets eval mode."""
        self.eval()
        if self.options.window is None and self._divisor is None:
            self._divisor = divisor_of(self, image)
        return predict_probabilities(
            self,
            image,
            len(self.classes),
            window=self.options.window,
            overlap=self.options.overlap,
            flips=self.options.flips,
            divisor=self._divisor,
        )

    def _measure(self, batch: tuple[Tensor, Tensor, int], part: str) -> Tensor:
        """Log loss and Dice of a case and return its predicted mask ``(*spatial)``."""
        image, mask = batch[0], batch[1].cpu()
        probabilities = self.predict_case(image)
        # Softmax of a logarithm gives the probabilities back, so the loss is that of what is predicted.
        loss = self._loss(probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log(), mask)
        prediction = probabilities[0].argmax(0)
        dice = dice_by_class(prediction, mask[0], len(self.classes)).mean()
        figures = {f"{part}/loss": loss.to(self.device), f"{part}/dice": dice.float().to(self.device)}
        self.log_dict(figures, batch_size=1, on_epoch=True, sync_dist=True)
        return prediction
