"""What a case must be: finite voxels, the card's channels, a mask of the image's size with known whole labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from visionpeft.data.segmentation.cards import SegmentationCard
from visionpeft.data.segmentation.cases import Sample
from visionpeft.data.segmentation.formats import Picture, laid_like
from visionpeft.errors import DataError

SHIFTED = 0.01  # millimetres by which the affines of an image and its mask may differ


def joined(
    card: SegmentationCard, image: Picture, mask: Picture, paths: tuple[Path, Path], labels: Mapping[int, int]
) -> Sample:
    """Image and mask as one sample.

    Raises:
        DataError: NaN or infinite voxels, another number of channels than the card says, image and mask of different
            size or contradicting orientation, labels that are no whole numbers or belong to no class. The message
            names the file.
    """
    values = with_channels(finite(image.values, paths[0]), card.channels, paths[0])
    mask = laid_like(mask, image)
    if image.shape != mask.shape:
        sizes = ["×".join(map(str, shape)) for shape in (image.shape, mask.shape)]
        raise DataError(f"{paths[0]} has size {sizes[0]}, but its mask {paths[1]} has {sizes[1]}")
    if image.orientation != mask.orientation and _apart(image, mask):
        lies = f"{image.orientation}, its mask {paths[1]} in {mask.orientation}"
        raise DataError(f"{paths[0]} lies in {lies} order, and their affines disagree: one of them is wrong")
    classes = known(labels_of(mask, paths[1]), labels, card.classes, paths[1])
    return Sample(values, classes, image.spacing, image.affine, image.orientation)


def _apart(image: Picture, mask: Picture) -> bool:
    if image.affine is None or mask.affine is None:
        return False
    return bool(np.abs(image.affine - mask.affine).max() > SHIFTED)


def finite(values: np.ndarray, path: Path) -> np.ndarray:
    """The values, or DataError where one is NaN or infinite."""
    if values.dtype.kind == "f" and (count := int(values.size - np.isfinite(values).sum())):
        raise DataError(f"{path} has {count:,} NaN or infinite voxel(s) of {values.size:,}; replace them, e.g. by 0")
    return values


def with_channels(values: np.ndarray, channels: int, path: Path) -> np.ndarray:
    """``(channels, *spatial)``: grey is repeated, equal channels become one, and anything else is a DataError."""
    found = len(values)
    if found == channels:
        return values
    if found == 1:
        return np.repeat(values, channels, axis=0)
    if channels == 1 and all(np.array_equal(values[0], other) for other in values[1:]):
        return values[:1]
    kind = "a 4D volume with" if values.ndim == 4 else "an image with"
    raise DataError(f"{path} is {kind} {found} channels; the card says channels: {channels}")


def labels_of(mask: Picture, path: Path) -> np.ndarray:
    """The mask's values as integers ``(*spatial)``; floats are taken if they are whole."""
    values = with_channels(finite(mask.values, path), 1, path)[0]
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    whole = np.rint(values)
    if not np.array_equal(whole, values):
        wrong = values[whole != values].flat[0]
        raise DataError(f"the mask {path} has the value {wrong:g}; labels must be whole numbers")
    return whole.astype(np.int64)


def known(values: np.ndarray, labels: Mapping[int, int], classes: tuple[str, ...], path: Path) -> np.ndarray:
    """Classes ``0 … K-1`` (uint8) from the values of a mask; without ``labels`` they are classes already."""
    table = dict(labels) or {label: label for label in range(len(classes))}
    if wrong := sorted(set(table.values()) - set(range(len(classes)))):
        raise DataError(f"reader.labels names class {wrong[0]}, but there are {len(classes)} classes (from 0)")
    made = np.zeros(values.shape, np.uint8)
    for value in np.unique(values).tolist():
        if value not in table:
            hint = f"; say in 'reader.labels' which class it is, such as {{{value}: 1}}" if not labels else ""
            raise DataError(f"the mask {path} has the unknown value {value}; known are {sorted(table)}{hint}")
        made[values == value] = table[value]
    return made
