"""Whole cases: an image, its mask and its geometry, decoded and normalised once a process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from visionpeft.data.splits import split_digest
from visionpeft.data.tables import PARTS
from visionpeft.errors import unknown

MEMORY = 2 << 30  # bytes of decoded cases a process keeps; beyond it the one unused for longest goes


@dataclass(frozen=True, eq=False)
class Sample:
    """What a reader decodes: raw values.

    Attributes:
        image: ``(C, *spatial)``, any numeric dtype.
        mask: integers ``(*spatial)``, classes 0 … K-1.
        spacing: millimetres of a voxel along each spatial axis; 1 where the file does not say.
        affine: 4×4 map from voxel to scanner space (RAS), or None.
        orientation: the order of the axes in the file, such as ``"LPS"``; empty where it has none.
    """

    image: np.ndarray
    mask: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray | None = None
    orientation: str = ""


@dataclass(frozen=True, eq=False)
class Entry:
    """A case a reader found, not yet decoded. ``part`` is its official part, where there is one."""

    key: str
    group: str
    load: Callable[[], Sample]
    part: str | None = None


@dataclass(frozen=True, eq=False)
class Case:
    """A decoded case.

    Attributes:
        key: name that stays the same between machines.
        group: the patient or region that must not straddle two parts.
        image: normalised float32 ``(C, *spatial)``.
        mask: int64 ``(*spatial)``, 0 is the background.
        spacing: millimetres along each spatial axis.
        affine: 4×4 map from voxel to scanner space (RAS), or None.
        orientation: the order of the axes in the file, such as ``"LPS"``; empty where it has none.
    """

    key: str
    group: str
    image: np.ndarray
    mask: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray | None
    orientation: str = ""


class CaseTable:
    """All cases of a data set, decoded when first asked for.

    Attributes:
        keys, groups: names of the cases and of what they belong to.
        split: ``(N,)`` of ``"train"``, ``"val"`` or ``"test"``.
        classes: names; the first is the background.
        axes: 2 or 3 spatial axes.
        channels: of the images.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        split: np.ndarray,
        classes: tuple[str, ...],
        axes: int,
        channels: int,
        normalise: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.entries, self.split, self.classes = tuple(entries), split, classes
        self.axes, self.channels = axes, channels
        self.keys = tuple(entry.key for entry in entries)
        self.groups = tuple(entry.group for entry in entries)
        self._normalise = normalise
        self._decoded: OrderedDict[int, Case] = OrderedDict()

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def sha256(self) -> str:
        """Hash of which case, of which group, lies in which part: what a card pins."""
        return split_digest(self.keys, np.array(self.groups), self.split)

    def indices(self, part: str) -> np.ndarray:
        """Positions of the cases of ``"train"``, ``"val"`` or ``"test"``, ascending."""
        if part not in PARTS:
            raise unknown("split", part, PARTS)
        return np.flatnonzero(self.split == part)

    def case(self, index: int) -> Case:
        """Case ``index``, from memory if it was asked for before.

        Raises:
            DataError: the file cannot be read, or image and mask are not what the card says.
        """
        if index not in self._decoded:
            self._decoded[index] = self._decode(self.entries[index])
            self._forget()
        self._decoded.move_to_end(index)
        return self._decoded[index]

    def _decode(self, entry: Entry) -> Case:
        sample = entry.load()
        image = np.ascontiguousarray(self._normalise(sample.image), np.float32)
        mask = np.ascontiguousarray(sample.mask, np.int64)
        return Case(entry.key, entry.group, image, mask, sample.spacing, sample.affine, sample.orientation)

    def _forget(self) -> None:
        held = sum(case.image.nbytes + case.mask.nbytes for case in self._decoded.values())
        while held > MEMORY and len(self._decoded) > 1:
            _, case = self._decoded.popitem(last=False)
            held -= case.image.nbytes + case.mask.nbytes
