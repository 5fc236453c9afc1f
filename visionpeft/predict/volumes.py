"""NIfTI files and DICOM series: values in RAS order, masks written with the file's own affine and header."""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError

from visionpeft.data.segmentation.dicom import read_series
from visionpeft.errors import DataError
from visionpeft.files import atomic_write
from visionpeft.predict.scans import Scan, smallest, suffix_of

DAMAGED = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)
_RAS = np.array([[0, 1], [1, 1], [2, 1]])


@dataclass(frozen=True, eq=False, kw_only=True)
class VolumeScan(Scan):
    """A volume ``(C, X, Y, Z)``, turned and mirrored to the order nearest to RAS (right, front, up rise).

    ``image`` keeps affine and header, ``turns`` is the nibabel orientation of the file's own axes.
    """

    image: Any
    turns: np.ndarray
    maps_suffix = ".nii.gz"

    def write_mask(self, path: Path, mask: np.ndarray) -> None:
        self._write(path, smallest(mask))

    def write_maps(self, path: Path, maps: np.ndarray) -> None:
        """As a volume of four axes, the classes last."""
        self._write(path, np.moveaxis(maps, 0, -1))

    def _write(self, path: Path, values: np.ndarray) -> None:
        own = apply_orientation(values, ornt_transform(_RAS, self.turns))
        header = self.image.header.copy()
        header.set_data_dtype(own.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        made = type(self.image)(own, self.image.affine, header)
        opened = gzip.open if suffix_of(path) == ".nii.gz" else open

        def save(temporary: Path) -> None:
            with opened(temporary, "wb") as stream:
                made.to_stream(stream)

        atomic_write(path, save)


def read_nifti(path: Path, axes: int = 3) -> VolumeScan:
    """A NIfTI file of three axes, or four with the channels last. One of two axes counts as a single slice.

    As in training, the order of the axes stays that of the file where it has neither sform nor qform, and in a single
    slice for a network of two ``axes``.

    Raises:
        DataError: the file is missing or damaged, its voxels are no plain numbers, or its affine has no orientation.
    """
    try:
        image: Any = nibabel.load(path)  # pyright: ignore[reportPrivateImportUsage]
        stored, proxy = np.asarray(image.dataobj.get_unscaled()), image.dataobj
    except DAMAGED as error:
        raise DataError(f"cannot read the NIfTI file {path}: {error}") from error
    if stored.dtype.kind not in "iufb":
        raise DataError(f"{path} holds {stored.dtype} voxels; one plain number a voxel is needed")
    while stored.ndim > 3 and stored.shape[-1] == 1:
        stored = stored[..., 0]
    if stored.ndim not in (2, 3, 4) or not stored.size:
        raise DataError(f"{path} has shape {stored.shape}; a volume has three axes, or four with the channels last")
    stored = stored[:, :, None] if stored.ndim == 2 else stored
    placed = bool(image.header["sform_code"]) or bool(image.header["qform_code"])
    turned = placed and not (axes == 2 and stored.shape[2] == 1)
    return volume_scan(path, image, stored, turned, proxy.slope, proxy.inter)


def read_dicom(path: Path, axes: int = 3) -> VolumeScan:
    """A DICOM file, or a folder with one series, read as in training; masks become NIfTI in scanner space.

    Raises:
        DataError: see :func:`visionpeft.data.segmentation.dicom.read_series`.
    """
    values, affine, sides = read_series(path)
    image = nifti_like(values, np.diag([*sides, 1.0]) if affine is None else affine)
    return volume_scan(path, image, values, affine is not None and not (axes == 2 and values.shape[2] == 1))


def volume_scan(
    path: Path, image: Any, stored: np.ndarray, turned: bool, slope: float = 1.0, offset: float = 0.0
) -> VolumeScan:
    """The scan of ``stored (X, Y, Z)`` or ``(X, Y, Z, C)`` with the geometry of a nibabel image."""
    turns = io_orientation(image.affine) if turned else _RAS
    if np.isnan(turns).any():
        raise DataError(f"{path}: its affine has an axis of length 0, so that its orientation is unknown")
    values = apply_orientation(stored, turns)
    sides = np.linalg.norm(image.affine[:3, :3], axis=0)[np.argsort(turns[:, 0])]
    raw = values[None] if values.ndim == 3 else np.moveaxis(values, -1, 0)
    return VolumeScan(
        path=path,
        raw=raw,
        spacing=tuple(map(float, sides)),
        slope=float(slope),
        offset=float(offset),
        image=image,
        turns=turns,
    )


def nifti_like(values: np.ndarray, affine: np.ndarray) -> Nifti1Image:
    """An image in memory whose geometry goes to the masks of a DICOM series; millimetres, scanner space."""
    image = Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    return image
