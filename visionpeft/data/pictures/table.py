"""Pictures in one table: what is shown, how it is called, and which part it is in; kept in two files of a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visionpeft.data.pictures.found import Found
from visionpeft.data.tables import PARTS, ImageTable
from visionpeft.errors import DataError, unknown

IMAGES, ABOUT = "images.npy", "pictures.json"


@dataclass(frozen=True, eq=False)
class PictureTable:
    """Pictures with captions.

    Attributes:
        images: uint8 ``(N, S, S, 3)``, on disk, read as needed.
        texts: captions of every picture, at least one each; an empty text where nothing is said.
        keys: N names that stay the same between machines.
        concepts: what each picture shows; equal names in two styles mean the same, such as an emoji's code points.
        labels: int64 ``(N,)``, positions in ``classes``.
        classes: names of the classes, in alphabetical order.
        split: ``(N,)`` of ``"train"``, ``"val"`` or ``"test"``.
        counts: how many pictures were found, left out (by reason) and kept.
    """

    images: np.ndarray
    texts: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...]
    concepts: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    split: np.ndarray
    counts: dict[str, int]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def sha256(self) -> str:
        """Hash of every picture's key, concept, class, captions and part: what a card pins."""
        names = [self.classes[label] for label in self.labels]
        rows = zip(self.keys, self.concepts, names, self.texts, self.split.tolist(), strict=True)
        return hashlib.sha256("".join(f"{json.dumps(row)}\n" for row in rows).encode()).hexdigest()

    def indices(self, part: str) -> np.ndarray:
        """Positions of the pictures of ``"train"``, ``"val"`` or ``"test"``, ascending."""
        if part not in PARTS:
            raise unknown("split", part, PARTS)
        return np.flatnonzero(self.split == part)

    def as_images(self) -> ImageTable:
        """The pictures as a table whose labels are their positions."""
        return ImageTable(self.images, np.arange(len(self)), (), self.split, self.keys)


def write_table(
    folder: Path, batches: Iterable[np.ndarray], found: Sequence[Found], split: np.ndarray, counts: dict[str, int]
) -> None:
    """Put a table into an empty folder, for :func:`read_table`; ``batches`` of images are never all in memory."""
    images, done = None, 0
    for batch in batches:
        if images is None:
            shape = (len(found), *batch.shape[1:])
            images = np.lib.format.open_memmap(folder / IMAGES, mode="w+", dtype=np.uint8, shape=shape)
        images[done : done + len(batch)] = batch
        done += len(batch)
    rows = [[one.key, one.texts, one.concept, one.label] for one in found]
    content = {"rows": rows, "split": split.tolist(), "counts": counts}
    (folder / ABOUT).write_text(json.dumps(content), encoding="utf-8")


def read_table(folder: Path) -> PictureTable:
    """What :func:`write_table` wrote; DataError if it is damaged."""
    try:
        content = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        images = np.load(folder / IMAGES, mmap_mode="r")
        keys, texts, concepts, names = zip(*content["rows"], strict=True)
        classes = tuple(sorted(set(names)))
        labels = np.array([classes.index(name) for name in names], np.int64)
        split = np.array(content["split"], dtype="<U5")
        return PictureTable(images, tuple(map(tuple, texts)), keys, concepts, labels, classes, split, content["counts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is damaged ({error}): delete it to read the pictures anew") from error
