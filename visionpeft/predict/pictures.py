"""PNG, JPEG, BMP and TIFF pictures, and TIFF stacks: read as stored, masks written as PNG or TIFF."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from visionpeft.data.tables import MAX_PIXELS
from visionpeft.errors import DataError
from visionpeft.files import atomic_write
from visionpeft.predict.scans import Scan, smallest, suffix_of


@dataclass(frozen=True, eq=False)
class PictureScan(Scan):
    """A picture ``(C, H, W)``, or a TIFF stack ``(C, pages, H, W)``; masks hold class numbers as grey values."""

    resolution: dict[str, Any] = field(default_factory=dict)
    maps_suffix = ".npy"

    def write_mask(self, path: Path, mask: np.ndarray) -> None:
        if suffix_of(path) == ".png":
            atomic_write(path, png(smallest(mask)))
            return
        stream = io.BytesIO()
        tifffile.imwrite(stream, smallest(mask), photometric="minisblack", **self.resolution)
        atomic_write(path, stream.getvalue())

    def write_maps(self, path: Path, maps: np.ndarray) -> None:
        def save(temporary: Path) -> None:
            with open(temporary, "wb") as stream:
                np.save(stream, maps)

        atomic_write(path, save)


def read_picture(path: Path) -> PictureScan:
    """A PNG, JPEG or BMP file; palettes become colours, and an alpha channel is left out.

    Raises:
        DataError: the file is missing, damaged, no picture, or larger than 100 megapixels.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path} has {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are read")
            values = np.asarray(_decoded(image))
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"cannot read the picture {path}: {error}") from error
    return PictureScan(path, _channels_first(values), (1.0, 1.0))


def read_tiff(path: Path, axes: int | None = None) -> PictureScan:
    """A TIFF file: a picture for ``axes`` 2, a stack of grey pages for 3; by default as many as the file has.

    Raises:
        DataError: the file is missing or damaged, or has another number of axes.
    """
    try:
        with tifffile.TiffFile(path) as file:
            values = file.asarray()
            resolution = _resolution(file.pages[0])
    except (tifffile.TiffFileError, OSError, ValueError, KeyError, IndexError) as error:
        raise DataError(f"cannot read the TIFF file {path}: {error}") from error
    axes = axes or values.ndim
    if axes == 3 and values.ndim == 3:
        return PictureScan(path, values[None], (1.0, 1.0, 1.0), resolution=resolution)
    if axes == 2 and (values.ndim == 2 or (values.ndim == 3 and values.shape[-1] in (3, 4))):
        return PictureScan(path, _channels_first(values), (1.0, 1.0), resolution=resolution)
    wanted = "(H, W) or (H, W, 3)" if axes == 2 else "(pages, H, W)"
    raise DataError(f"{path} has shape {values.shape}; this run takes {wanted}")


def png(values: np.ndarray) -> bytes:
    """A grey ``(H, W)`` or coloured ``(H, W, 3)`` picture as the bytes of a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _decoded(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB", "RGBA", "LA") or image.mode.startswith(("I", "F")):
        return image.copy()
    return image.convert("L" if image.mode == "1" else "RGB")


def _channels_first(values: np.ndarray) -> np.ndarray:
    """``(H, W[, C])`` to ``(C, H, W)`` without alpha; colours that are all grey become one channel."""
    if values.ndim == 2:
        return values[None]
    colours = np.moveaxis(values[..., : 1 if values.shape[-1] == 2 else 3], -1, 0)
    grey = len(colours) == 3 and (colours == colours[:1]).all()
    return colours[:1] if grey else colours


def _resolution(page: Any) -> dict[str, Any]:
    """Dots an inch of a TIFF page as ``imwrite`` takes them."""
    tags = page.tags
    if "XResolution" not in tags or "YResolution" not in tags:
        return {}
    unit = tags["ResolutionUnit"].value if "ResolutionUnit" in tags else None
    return {"resolution": (tags["XResolution"].value, tags["YResolution"].value), "resolutionunit": unit}
