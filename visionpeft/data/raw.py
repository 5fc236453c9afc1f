"""What readers share: what they return, and how they take a file of a data set."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from visionpeft.data.sources import Staged
from visionpeft.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")


@dataclass(frozen=True, eq=False)
class Raw:
    """What a reader found, before splitting; ``official`` holds the published part of each image, if there is one."""

    images: np.ndarray | Sequence[Path]
    labels: np.ndarray
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    official: np.ndarray | None = None


def content(card: Staged, folder: Path, name: str) -> bytes:
    """The bytes of file ``name`` (or ``name.gz``, unpacked), checked against the card's checksum."""
    plain, packed = folder / name, folder / f"{name}.gz"
    try:
        found = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    except FileNotFoundError:
        hint = f". The layout is\n{card.layout}" if card.layout else ""
        raise DataError(f"data set {card.name!r}: {plain} is missing{hint}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"data set {card.name!r}: cannot read {name} in {folder}: {error}") from error
    digest = hashlib.sha256(found).hexdigest()
    if digest != card.files.get(name, digest):
        raise DataError(
            f"data set {card.name!r}: {name} in {folder} has sha256 {digest}, but the card names {card.files[name]}; "
            "if visionpeft fetched it, delete the folder to fetch it anew"
        )
    return found
