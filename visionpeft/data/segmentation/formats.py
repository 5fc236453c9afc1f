"""Image and mask files: PNG, JPEG, TIFF, NIfTI and DICOM, with their geometry.

Volumes come as ``(X, Y, Z)`` in the order nearest to RAS (right, anterior, superior), whatever order the file has, so
that all cases of a data set lie the same way; :func:`restore` puts a mask back into the file's own order. A NIfTI file
without any affine (sform and qform code 0) keeps its order and its voxel sizes, and has ``affine`` None.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from nibabel import orientations
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from PIL import Image, UnidentifiedImageError

from visionpeft.data.segmentation.dicom import read_series
from visionpeft.data.tables import MAX_PIXELS
from visionpeft.errors import DataError

NIFTI, PICTURES, TIFFS, DICOM = (".nii", ".nii.gz"), (".png", ".jpg", ".jpeg", ".bmp"), (".tif", ".tiff"), (".dcm",)
SUFFIXES = NIFTI + PICTURES + TIFFS + DICOM


@dataclass(frozen=True, eq=False)
class Picture:
    """What a file holds.

    Attributes:
        values: ``(C, *spatial)``.
        spacing: millimetres along each spatial axis, 1 where the file does not say.
        affine: 4×4 map from voxel to scanner space (RAS), or None.
        turned: nibabel's orientation from the file's order to this one, or None where nothing was turned.
    """

    values: np.ndarray
    spacing: tuple[float, ...]
    affine: np.ndarray | None = None
    turned: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the spatial axes."""
        return self.values.shape[1:]

    @property
    def orientation(self) -> str:
        """The order of the axes in the file, such as ``"LPS"``; empty where it says nothing."""
        return "" if self.turned is None else "".join(orientations.ornt2axcodes(self.turned))


def suffix_of(path: Path) -> str:
    """The ending that says how ``path`` is read (``.nii.gz`` is one), in lower case; empty for an unknown one."""
    return next((suffix for suffix in sorted(SUFFIXES, key=len)[::-1] if path.name.lower().endswith(suffix)), "")


def read(path: Path, axes: int) -> Picture:
    """Read an image or mask file, or a folder with one DICOM series, with ``axes`` spatial axes.

    Raises:
        DataError: the file is missing, damaged, of an unknown kind, or has another number of axes.
    """
    suffix = suffix_of(path)
    try:
        if path.is_dir() or suffix in DICOM:
            return _volume(*read_series(path), axes, path)
        if suffix in NIFTI:
            return _nifti(path, axes)
        if suffix in TIFFS:
            return _stack(np.asarray(tifffile.imread(path)), axes, path)
        if suffix in PICTURES:
            return _stack(_decoded(path), axes, path)
    except (OSError, ValueError, SyntaxError, EOFError, ImageFileError, tifffile.TiffFileError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    raise DataError(f"cannot read {path}: known endings are {', '.join(SUFFIXES)}, and folders with a DICOM series")


def laid_like(mask: Picture, image: Picture) -> Picture:
    """A mask from a file without orientation is taken to lie in the file of its image as the image does."""
    if mask.turned is None and image.turned is not None and mask.values.ndim == 4:
        values = [orientations.apply_orientation(channel, image.turned) for channel in mask.values]
        return Picture(np.stack(values), image.spacing, image.affine, image.turned)
    if image.turned is None and mask.turned is not None:
        return Picture(np.stack([restore(channel, mask) for channel in mask.values]), image.spacing)
    return mask


def restore(mask: np.ndarray, like: Picture) -> np.ndarray:
    """``mask (X, Y, Z)`` in the order of the axes that the file of ``like`` has."""
    if like.turned is None:
        return mask
    standard = orientations.axcodes2ornt("RAS")
    return orientations.apply_orientation(mask, orientations.ornt_transform(standard, like.turned))


def _decoded(path: Path) -> np.ndarray:
    """Pixels as they are stored (a palette's numbers, not its colours); transparency is drawn on white."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{path} has {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} are read")
            if "A" in image.getbands():
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
            values = np.asarray(image)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    return values.astype(np.uint8) if values.dtype == bool else values


def _stack(values: np.ndarray, axes: int, path: Path) -> Picture:
    """Rows and columns, with colours last; or slices, rows and columns, turned to ``(X, Y, Z)``."""
    if axes == 2 and (values.ndim == 2 or (values.ndim == 3 and values.shape[2] <= 4)):
        return Picture(values.reshape(*values.shape[:2], -1).transpose(2, 0, 1), (1.0, 1.0))
    if axes == 3 and values.ndim == 3:
        return Picture(values.transpose(2, 1, 0)[None], (1.0, 1.0, 1.0))
    raise _axes_error(path, values.shape, axes)


def _nifti(path: Path, axes: int) -> Picture:
    image: Any = Nifti1Image.from_filename(path)
    header = image.header
    placed = bool(header["sform_code"]) or bool(header["qform_code"])
    sizes = tuple(float(size) for size in header.get_zooms())
    return _volume(np.asarray(image.dataobj), image.affine if placed else None, sizes, axes, path)


def _volume(values: np.ndarray, affine: np.ndarray | None, sizes: tuple[float, ...], axes: int, path: Path) -> Picture:
    if axes == 2:
        flat = values.reshape(values.shape[:2]) if values.size == np.prod(values.shape[:2]) else values
        if flat.ndim != 2:
            raise _axes_error(path, values.shape, axes)
        return Picture(flat[None], sizes[:2])
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim not in (3, 4):
        raise _axes_error(path, values.shape, axes)
    turned = None
    if affine is not None:
        turned = orientations.io_orientation(affine)
        affine = np.asarray(affine @ orientations.inv_ornt_aff(turned, values.shape[:3]))
        values = orientations.apply_orientation(values, turned)
        sizes = tuple(float(length) for length in np.linalg.norm(affine[:3, :3], axis=0))
    channels = np.moveaxis(values, -1, 0) if values.ndim == 4 else values[None]
    return Picture(channels, (*sizes, 1.0)[:3], affine, turned)


def _axes_error(path: Path, shape: tuple[int, ...], axes: int) -> DataError:
    return DataError(f"{path} has shape {'×'.join(map(str, shape))}; the card says {axes} spatial axes")
