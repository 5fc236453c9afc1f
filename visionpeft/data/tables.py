"""A data set in memory: images, labels, classes, and which split each image belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from visionpeft.data.splits import split_digest
from visionpeft.errors import DataError, unknown

PARTS = ("train", "val", "test")
MAX_PIXELS = 100_000_000  # larger pictures are refused before decoding: a small file can hold gigabytes


@dataclass(frozen=True, eq=False)
class ImageTable:
    """Images with labels.

    Attributes:
        images: uint8 array ``(N, H, W)`` or ``(N, H, W, C)``, or N paths of image files.
        labels: int64 ``(N,)``, positions in ``classes``.
        classes: names of the classes.
        split: ``(N,)`` of ``"train"``, ``"val"`` or ``"test"``.
        keys: N names that stay the same between machines; splits are derived from them.
    """

    images: np.ndarray | Sequence[Path]
    labels: np.ndarray
    classes: tuple[str, ...]
    split: np.ndarray
    keys: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise DataError if an image is in no split, or has no key, image or class of its own."""
        lengths = {len(self.images), len(self.labels), len(self.split), len(self.keys)}
        if len(lengths) != 1:
            raise DataError(f"images, labels, splits and keys differ in number: {sorted(lengths)}")
        if (lost := np.flatnonzero(~np.isin(self.split, PARTS))).size:
            place = f"{str(self.split[lost[0]])!r} is none of {', '.join(PARTS)}"
            raise DataError(f"{lost.size} image(s) are in no split, such as {self.keys[lost[0]]!r}: {place}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def sha256(self) -> str:
        """Hash of which image, with which label, lies in which split: what a card pins."""
        return split_digest(self.keys, self.labels, self.split)

    def indices(self, part: str) -> np.ndarray:
        """Positions of the images of ``"train"``, ``"val"`` or ``"test"``, ascending."""
        if part not in PARTS:
            raise unknown("split", part, PARTS)
        return np.flatnonzero(self.split == part)

    def picture(self, index: int) -> np.ndarray:
        """Image ``index`` as uint8 ``(H, W, C)``, with C = 1 or 3."""
        image = self.images[index]
        array = decode(image) if isinstance(image, Path) else np.asarray(image)
        return array[:, :, None] if array.ndim == 2 else array


def decode(path: Path) -> np.ndarray:
    """Read an image file as uint8 ``(H, W, 3)`` or grey ``(H, W)``; transparency is drawn on white.

    Raises:
        DataError: the file is missing, damaged, not an image, or larger than 100 megapixels.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path} has {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are read")
            return np.asarray(_plain(image))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"cannot read the image {path}: {error}") from error


def _plain(image: Image.Image) -> Image.Image:
    image = eight_bits(image)
    if image.mode == "L":
        return image.copy()
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def eight_bits(image: Image.Image) -> Image.Image:
    """The picture, its values of 16 bits as their upper 8; ValueError for 32 bits, which have no range."""
    if image.mode.startswith("I;16"):  # Pillow's own conversion makes all but the darkest of these white
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its values have 32 bits and no range to scale them by; save it with 8 or 16 bits")
    return image
