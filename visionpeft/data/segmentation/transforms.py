"""MONAI transforms of training: foreground-balanced crops, flips, turns, small rotations, changes of light.

All act on dictionaries ``{"image": (C, *spatial), "mask": (1, *spatial)}`` and draw from the random state that is set
before each use, so that a crop is a function of ``(seed, epoch, index)`` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import radians
from typing import Any

import numpy as np
import torch
from monai.data.meta_obj import get_track_meta, set_track_meta
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import RandCropByPosNegLabeld
from monai.transforms.intensity.dictionary import RandGaussianNoised, RandScaleIntensityd, RandShiftIntensityd
from monai.transforms.spatial.dictionary import RandAffined, RandFlipd, RandRotate90d

from visionpeft.data.randomness import stream
from visionpeft.data.segmentation.cards import SegmentationAugment

BOTH = ("image", "mask")
MAX_CENTRES = 20_000  # voxels of a case that may become the centre of a crop, for each of the two kinds

Item = dict[str, Any]


def augmentation(axes: int, rule: SegmentationAugment) -> list[Any]:
    """The steps of a card's ``augment`` rule for crops with ``axes`` spatial axes."""
    steps: list[Any] = [RandFlipd(BOTH, prob=0.5, spatial_axis=axis) for axis in rule.flip]
    if rule.turn:
        steps.append(RandRotate90d(BOTH, prob=0.75, max_k=3, spatial_axes=(0, 1)))
    if rule.rotate or rule.scale:
        angle = radians(rule.rotate)
        steps.append(
            RandAffined(
                BOTH,
                prob=1.0,
                rotate_range=[angle] if axes == 2 else [0.0, 0.0, angle],
                scale_range=[rule.scale] * axes,
                mode=("bilinear", "nearest"),
                padding_mode="reflection",
            )
        )
    if rule.light:
        steps += [
            RandScaleIntensityd("image", rule.light, prob=1.0),
            RandShiftIntensityd("image", rule.light, prob=1.0),
        ]
    if rule.noise:
        steps.append(RandGaussianNoised("image", prob=0.5, std=rule.noise))
    return steps


def crop(patch: Sequence[int], foreground: float) -> RandCropByPosNegLabeld:
    """One crop of size ``patch``, with probability ``foreground`` centred on a voxel of an object."""
    return RandCropByPosNegLabeld(
        BOTH,
        label_key="mask",
        spatial_size=tuple(patch),
        pos=foreground,
        neg=1 - foreground,
        fg_indices_key="foreground",
        bg_indices_key="background",
    )


def with_centres(item: Item) -> Item:
    """Add which voxels may become the centre of a crop (at most :data:`MAX_CENTRES` of each kind, evenly spread).

    Where there is only one kind, it stands for both.
    """
    mask = item["mask"].reshape(-1)
    kinds = [_thinned(np.flatnonzero(chosen)) for chosen in (mask != 0, mask == 0)]
    foreground, background = (kind if kind.size else kinds[1 - n] for n, kind in enumerate(kinds))
    return {**item, "foreground": foreground, "background": background}


def _thinned(positions: np.ndarray) -> np.ndarray:
    return positions[:: max(1, -(-len(positions) // MAX_CENTRES))]


class Steps:
    """Transforms in a row that share one random state: seeding it once is cheaper than seeding every step."""

    def __init__(self, steps: Sequence[Any]):
        self.steps = Compose(list(steps))
        self._state = np.random.RandomState()
        for step in steps:
            step.set_random_state(state=self._state)

    def __call__(self, item: Item, seed: int, epoch: int, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the steps on a case; float32 ``(C, *patch)`` and int64 ``(*patch)``."""
        self._state.seed(int(stream(seed, "augment", epoch, index).integers(2**32)))
        tracked = get_track_meta()
        set_track_meta(False)  # spares the bookkeeping of affines, most of the time of a small crop
        try:
            done: Any = self.steps(item)
        finally:
            set_track_meta(tracked)
        made = done[0] if isinstance(done, list) else done  # a crop comes as a list of one
        return torch.as_tensor(made["image"], dtype=torch.float32), torch.as_tensor(made["mask"][0]).long()
