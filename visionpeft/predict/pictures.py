"""PNG, JPEG, BMP and TIFF pictures, and TIFF stacks: read as in training, masks written as PNG or TIFF."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from visionpeft.data.segmentation.formats import TIFFS, read
from visionpeft.errors import DataError
from visionpeft.files import atomic_write
from visionpeft.predict.scans import Scan, smallest, suffix_of


@dataclass(frozen=True, eq=False)
class PictureScan(Scan):
    """A picture ``(C, H, W)``, or a TIFF stack ``(C, X, Y, Z)``, pages last; grey values of masks are class numbers."""

    resolution: dict[str, Any] = field(default_factory=dict)
    maps_suffix = ".npy"

    def write_mask(self, path: Path, mask: np.ndarray) -> None:
        if suffix_of(path) == ".png":
            atomic_write(path, png(smallest(mask)))
            return
        stream = io.BytesIO()
        pages = smallest(mask).transpose() if mask.ndim == 3 else smallest(mask)
        tifffile.imwrite(stream, pages, photometric="minisblack", **self.resolution)
        atomic_write(path, stream.getvalue())

    def write_maps(self, path: Path, maps: np.ndarray) -> None:
        def save(temporary: Path) -> None:
            with open(temporary, "wb") as stream:
                np.save(stream, maps)

        atomic_write(path, save)


def read_picture(path: Path, axes: int | None = None) -> PictureScan:
    """A picture as training reads it; of a TIFF file with ``axes`` 3 a stack of pages as ``(X, Y, Z)``.

    Raises:
        DataError: the file is missing, damaged, no picture, larger than 100 megapixels, or of another number of axes.
    """
    tiff = suffix_of(path) in TIFFS
    axes = axes or (_tiff_axes(path) if tiff else 2)
    if axes == 3 and not tiff:
        raise DataError(f"{path} is a picture; this run was trained on volumes")
    found = read(path, axes)
    return PictureScan(path, found.values, found.spacing, resolution=_resolution(path) if tiff else {})


def _tiff_axes(path: Path) -> int:
    shape = read_shape(path)
    return 3 if len(shape) == 3 and shape[-1] > 4 else 2


def read_shape(path: Path) -> tuple[int, ...]:
    """Of the values in a TIFF file, without reading them."""
    try:
        with tifffile.TiffFile(path) as file:
            return file.series[0].shape
    except (tifffile.TiffFileError, OSError, ValueError, IndexError) as error:
        raise DataError(f"cannot read the TIFF file {path}: {error}") from error


def png(values: np.ndarray) -> bytes:
    """A grey ``(H, W)`` or coloured ``(H, W, 3)`` picture as the bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _resolution(path: Path) -> dict[str, Any]:
    """Dots an inch of a TIFF file as ``imwrite`` takes them."""
    with tifffile.TiffFile(path) as file:
        page: Any = file.pages[0]
        tags = page.tags
        if "XResolution" not in tags or "YResolution" not in tags:
            return {}
        unit = tags["ResolutionUnit"].value if "ResolutionUnit" in tags else None
        return {"resolution": (tags["XResolution"].value, tags["YResolution"].value), "resolutionunit": unit}
