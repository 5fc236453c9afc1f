"""Losses of segmentation: a term over regions and one over voxels, both MONAI's, on one class map or on several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from monai.losses.dice import DiceLoss, GeneralizedDiceLoss
from monai.losses.ds_loss import DeepSupervisionLoss
from monai.losses.focal_loss import FocalLoss
from torch import Tensor, nn

from visionpeft.errors import OptionError, StateError, unknown

LossName = Literal["dice_ce", "dice_focal", "generalized_dice", "generalized_dice_ce"]


class SegmentLoss:
    """Mean loss of class maps against masks.

    Args:
        name: ``dice_ce`` and ``dice_focal`` add cross-entropy or the softmax focal loss (γ = 2) to the Dice loss of the
            foreground classes; ``generalized_dice`` (Sudre et al. 2017) weights every class by its inverse squared
            volume; ``generalized_dice_ce`` adds cross-entropy to it.
        classes: number of classes, background included.
        class_weights: one weight a class, background first, for Dice, focal and cross-entropy terms. Only their ratios
            matter, for each term divides by their mean. ``None`` weights all alike.
        deep_supervision: use every map of a network that returns several, map i weighted ``2^-i`` (not below 1/16, the
            weights summing to one), masks resized to it by nearest neighbour; else the first map alone.

    Overlaps are summed over the batch before dividing, for a crop without foreground has no Dice of its own.

    Raises:
        UnknownNameError: no such loss.
        OptionError: weights that are negative, not finite, all zero in the foreground, of the wrong number, or given
            to ``generalized_dice``, which derives its own.
    """

    def __init__(
        self,
        name: LossName = "dice_ce",
        *,
        classes: int,
        class_weights: Sequence[float] | None = None,
        deep_supervision: bool = True,
    ) -> None:
        check_loss(name, class_weights)
        if class_weights is not None and len(class_weights) != classes:
            raise OptionError(f"class_weights has {len(class_weights)} values for {classes} classes, background first")
        self.classes, self.deep_supervision = classes, deep_supervision
        terms = _Sum(_region(name, class_weights), _voxel(name, class_weights))
        self._loss = DeepSupervisionLoss(terms)  # pyright: ignore[reportArgumentType]  (any callable loss will do)

    def __call__(self, output: Tensor | Sequence[Tensor], masks: Tensor) -> Tensor:
        """The loss, a scalar.

        Args:
            output: what the network returned for a batch: see :func:`class_maps`.
            masks: ``(batch, *spatial)`` int64, 0 … classes-1.

        Raises:
            StateError: the network makes another number of class maps.
        """
        maps = class_maps(output, masks.ndim - 1, self.classes)
        maps = maps if self.deep_supervision else maps[:1]
        loss = self._loss.to(maps[0].device)(maps, masks.unsqueeze(1).float())
        return loss / sum(self._loss.get_weights(len(maps)))


def class_maps(output: Tensor | Sequence[Tensor], axes: int, classes: int) -> list[Tensor]:
    """The maps ``(batch, classes, *spatial)`` that a network returned, the one to predict with first.

    Args:
        output: one map; a list or tuple of them, finest first (U²-Net); or a stack ``(batch, maps, classes, *spatial)``
            (MONAI's DynUNet in training).
        axes: number of spatial axes.
        classes: number of classes.

    Raises:
        StateError: the output is none of these, or has another number of classes.
    """
    maps = [output] if isinstance(output, Tensor) else list(output)
    if len(maps) == 1 and maps[0].ndim == axes + 3:
        maps = list(maps[0].unbind(1))
    if not maps or any(one.ndim != axes + 2 or one.shape[1] != classes for one in maps):
        found = [tuple(one.shape) for one in maps]
        raise StateError(
            f"the network must return class maps (batch, {classes}, {axes} spatial axes), found {found}: "
            "its head makes another number of classes than the data has, or it is no segmentation network"
        )
    return maps


def check_loss(name: str, class_weights: Sequence[float] | None) -> None:
    """Refuse what no number of classes would make right; see :class:`SegmentLoss`."""
    if name not in get_args(LossName):
        raise unknown("segmentation loss", name, get_args(LossName))
    if class_weights is None:
        return
    if name == "generalized_dice":
        raise OptionError("generalized_dice weights classes by their volume: leave class_weights out")
    if not all(math.isfinite(weight) and weight >= 0 for weight in class_weights) or not sum(class_weights[1:]):
        raise OptionError(
            "class_weights needs finite numbers of at least 0, background first, not all 0 in the foreground; "
            f"found {list(class_weights)}"
        )


class _Sum(nn.Module):
    def __init__(self, *terms: nn.Module | None) -> None:
        super().__init__()
        self.terms = nn.ModuleList([term for term in terms if term is not None])

    def forward(self, maps: Tensor, masks: Tensor) -> Tensor:
        return torch.stack([term(maps, masks) for term in self.terms]).sum()


class _CrossEntropy(nn.CrossEntropyLoss):
    def forward(self, maps: Tensor, masks: Tensor) -> Tensor:
        return super().forward(maps, masks[:, 0].long())


def _region(name: LossName, class_weights: Sequence[float] | None) -> nn.Module:
    if name.startswith("generalized_dice"):
        return GeneralizedDiceLoss(to_onehot_y=True, softmax=True, batch=True)
    weight = None if class_weights is None else _relative(class_weights[1:])
    return DiceLoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, weight=weight)


def _voxel(name: LossName, class_weights: Sequence[float] | None) -> nn.Module | None:
    weight = None if class_weights is None else _relative(class_weights)
    if name.endswith("_ce"):
        return _CrossEntropy(weight)
    return FocalLoss(to_onehot_y=True, use_softmax=True, weight=weight) if name == "dice_focal" else None


def _relative(weights: Sequence[float]) -> Tensor:
    values = torch.tensor(weights, dtype=torch.float32)
    return values / values.mean()
