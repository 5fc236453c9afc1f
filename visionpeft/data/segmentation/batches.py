"""What the loaders deliver: batches of training crops, and whole cases one at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.utils.data import Dataset

from visionpeft.backbones.spec import InputSpec
from visionpeft.data.loaders import Batch, Draw
from visionpeft.data.segmentation.cards import Intensity, SegmentationAugment
from visionpeft.data.segmentation.cases import CaseTable
from visionpeft.data.segmentation.intensity import for_network, padding_of
from visionpeft.data.segmentation.transforms import Item, Steps, augmentation, crop, with_centres

Whole = tuple[torch.Tensor, torch.Tensor, int]  # image (1, C, *spatial), mask (1, *spatial), position in the table


class WholeCases(Dataset[Whole]):
    """Whole cases by position, each resized so that its longest side is ``size`` (None: as it is)."""

    def __init__(self, table: CaseTable, rule: Intensity, spec: InputSpec | None, size: int | None = None):
        self.table, self.rule, self.spec, self.size = table, rule, spec, size

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Whole:
        image, mask = self.resized(index)
        return for_network(image, self.rule, self.spec), mask, index

    def resized(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Float32 ``(1, C, *spatial)`` before the backbone's mean and deviation, and int64 ``(1, *spatial)``."""
        case = self.table.case(index)
        image, mask = torch.from_numpy(case.image)[None], torch.from_numpy(case.mask)[None]
        if self.size is None or max(case.mask.shape) == self.size:
            return image, mask
        ratio = self.size / max(case.mask.shape)
        shape = [max(1, round(side * ratio)) for side in case.mask.shape]
        flat = len(shape) == 2
        mode = "bilinear" if flat else "trilinear"
        smooth = F.interpolate(image, shape, mode=mode, align_corners=False, antialias=flat)  # no 3D antialiasing there
        return smooth, F.interpolate(mask[None].float(), shape, mode="nearest-exact")[0].long()


class CropBatches(Dataset[Batch]):
    """Batches of training crops by lists of :data:`Draw`: one crop of each case drawn.

    Without ``patch``, whole cases padded to equal sides of ``size``; cases smaller than the patch are padded too. The
    padding is background, and what the network gets there is zero, as in predictions.
    """

    def __init__(
        self,
        cases: WholeCases,
        patch: tuple[int, ...] | None,
        foreground: float,
        seed: int,
        rule: SegmentationAugment | None,
    ):
        self.cases, self.patch, self.seed = cases, patch, seed
        axes = cases.table.axes
        self.least = patch or (cases.size,) * axes if cases.size else patch
        steps = ([crop(patch, foreground)] if patch else []) + (augmentation(axes, rule) if rule else [])
        self.steps = Steps(steps)
        self._prepared: dict[int, Item] = {}

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        made = [self.steps(self._item(index), self.seed, epoch, index) for epoch, index in draws]
        images, masks = (torch.stack(tensors) for tensors in zip(*made, strict=True))
        return for_network(images, self.cases.rule, self.cases.spec), masks

    def __getitem__(self, draw: Draw) -> Batch:
        images, masks = self.__getitems__([draw])
        return images[0], masks[0]

    def _item(self, index: int) -> Item:
        if index in self._prepared:
            return self._prepared[index]
        image, mask = self.cases.resized(index)
        shades = padding_of(image.shape[1], self.cases.rule, self.cases.spec).tolist()
        item = {"image": self._padded(image[0], shades), "mask": self._padded(mask, [0])}
        item = with_centres(item) if self.patch else item
        if self.cases.table.keep != "none":
            self._prepared[index] = item
        return item

    def _padded(self, values: torch.Tensor, shades: Sequence[float]) -> torch.Tensor:
        """``(C, *spatial)`` in the middle of a block of at least the least size; around it each channel's shade."""
        missing = [max(0, least - side) for least, side in zip(self.least or (), values.shape[1:], strict=False)]
        if not any(missing):
            return values
        widths = [width for gap in reversed(missing) for width in (gap // 2, gap - gap // 2)]
        return torch.stack([F.pad(one, widths, value=shade) for one, shade in zip(values, shades, strict=True)])
