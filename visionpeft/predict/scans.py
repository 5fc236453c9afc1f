"""An image file as a network sees it, and how a mask is written in that file's format and geometry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from visionpeft.errors import DataError

SUFFIXES = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".bmp"), ".png"),
    **dict.fromkeys((".tif", ".tiff"), ".tif"),
    ".nii": ".nii",
    ".nii.gz": ".nii.gz",
    ".dcm": ".nii.gz",
}
"""Suffix of an image → suffix of its mask: lossy and scanner formats have masks in a format that keeps them."""


@dataclass(frozen=True, eq=False)
class Scan(ABC):
    """An opened image.

    Attributes:
        path: the file, or the folder of a series.
        raw: ``(C, *spatial)`` as stored; an uncompressed NIfTI file is mapped into memory, not read.
        spacing: millimetres of a voxel along each spatial axis, 1 where the file does not say.
        slope, offset: from stored to real values.
    """

    path: Path
    raw: np.ndarray
    spacing: tuple[float, ...]
    slope: float = 1.0
    offset: float = 0.0

    maps_suffix: ClassVar[str]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the spatial axes: ``(H, W)`` of a picture, ``(X, Y, Z)`` of a volume, from left, back and below."""
        return self.raw.shape[1:]

    def values(self, *place: slice | int) -> np.ndarray:
        """Real values ``(C, …)`` at ``place`` of the spatial axes.

        Raises:
            DataError: some of them are NaN or infinite.
        """
        found = self.raw[(slice(None), *place)]
        if (self.slope, self.offset) != (1.0, 0.0):
            found = found.astype(np.float32) * self.slope + self.offset
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            bad = int((~np.isfinite(found)).sum())
            raise DataError(f"{self.path} holds {bad} NaN or infinite values: replace them, for instance by 0")
        return found

    @abstractmethod
    def write_mask(self, path: Path, mask: np.ndarray) -> None:
        """Write class numbers ``(*spatial)`` with this scan's geometry, atomically."""

    @abstractmethod
    def write_maps(self, path: Path, maps: np.ndarray) -> None:
        """Write float32 ``(K, *spatial)``, one map a class, atomically."""


def suffix_of(path: Path) -> str:
    """The suffix in lower case, ``.nii.gz`` as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def smallest(mask: np.ndarray) -> np.ndarray:
    """Class numbers in the smallest unsigned type that every format has."""
    return mask.astype(np.uint8 if mask.max(initial=0) < 256 else np.uint16)
