"""DICOM files and series of one slice a file, as volumes in scanner space or as single pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from nibabel.orientations import apply_orientation
from pydicom.errors import InvalidDicomError

from visionpeft.errors import DataError
from visionpeft.predict.scans import Scan
from visionpeft.predict.volumes import VolumeScan, nifti_like, volume_scan

TO_RAS = np.diag([-1.0, -1.0, 1.0])  # DICOM counts towards left and back
UNREADABLE = (InvalidDicomError, OSError, AttributeError, KeyError, ValueError, RuntimeError, NotImplementedError)
TOLERANCE = 0.1  # of the distance between slices: rounding in headers stays below it, a missing slice does not


@dataclass(frozen=True, eq=False, kw_only=True)
class DicomPicture(Scan):
    """One DICOM image as a picture ``(C, rows, columns)``; its mask is a NIfTI volume of a single slice."""

    volume: VolumeScan
    turn: np.ndarray
    maps_suffix = ".nii.gz"

    def write_mask(self, path: Path, mask: np.ndarray) -> None:
        self.volume.write_mask(path, self._placed(mask))

    def write_maps(self, path: Path, maps: np.ndarray) -> None:
        self.volume.write_maps(path, np.stack([self._placed(one) for one in maps]))

    def _placed(self, plane: np.ndarray) -> np.ndarray:
        return apply_orientation(plane.T[:, :, None], self.turn)


def read_dicom(files: Sequence[Path], axes: int) -> Scan:
    """A series, or with ``axes`` 2 a single file as a picture; values after the rescale slope and intercept.

    Raises:
        DataError: a file is missing, damaged or compressed in a way that cannot be read, holds several frames or
            colours, or the slices differ in size or direction, or one is missing.
    """
    slices = [_read(path) for path in files]
    where = files[0] if len(files) == 1 else files[0].parent
    stack, affine = _stacked(slices, where)
    scan = volume_scan(where, nifti_like(stack, affine), stack)
    if axes == 2 and len(slices) == 1:
        rows = np.ascontiguousarray(stack[:, :, 0].T)[None]
        return DicomPicture(where, rows, (float(_spacing(slices[0])[0]),) * 2, volume=scan, turn=scan.turns)
    return scan


def _read(path: Path) -> Any:
    try:
        dataset = pydicom.dcmread(path)
        values = dataset.pixel_array
    except (
        InvalidDicomError,
        OSError,
        AttributeError,
        KeyError,
        ValueError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise DataError(f"cannot read the DICOM file {path}: {error}") from error
    if values.ndim != 2:
        raise DataError(f"{path} holds {values.shape} values; one grey slice a file is read: convert it to NIfTI first")
    return dataset


def _stacked(slices: list[Any], where: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values ``(columns, rows, slices)`` in the order of their positions, and their affine to RAS."""
    if len({(s.Rows, s.Columns, tuple(_direction(s).round(4))) for s in slices}) > 1:
        raise DataError(f"{where}: the slices of the series differ in size or direction")
    along, down = _direction(slices[0])[:3], _direction(slices[0])[3:]
    normal = np.cross(along, down)
    slices = sorted(slices, key=lambda s: float(normal @ _position(s)))
    step = _step(np.array([normal @ _position(s) for s in slices]), slices[0], where)
    sides = _spacing(slices[0])
    affine = np.eye(4)
    affine[:3, :3] = TO_RAS @ np.stack([along * sides[1], down * sides[0], normal * step], 1)
    affine[:3, 3] = TO_RAS @ _position(slices[0])
    return np.stack([_values(s).T for s in slices], -1), affine


def _step(positions: np.ndarray, first: Any, where: Path) -> float:
    """Millimetres between slices."""
    if len(positions) == 1:
        return float(first.get("SliceThickness") or 1)
    gaps = np.diff(positions)
    usual = float(np.median(gaps))
    if usual <= 0 or np.abs(gaps - usual).max() > TOLERANCE * usual:
        found = f"{gaps.min():.3g} to {gaps.max():.3g} mm apart"
        raise DataError(f"{where}: the {len(positions)} slices are {found}; one is missing, or there twice")
    return usual


def _values(dataset: Any) -> np.ndarray:
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    stored = dataset.pixel_array
    return stored if (slope, intercept) == (1.0, 0.0) else (stored * slope + intercept).astype(np.float32)


def _direction(dataset: Any) -> np.ndarray:
    return np.array(dataset.get("ImageOrientationPatient") or (1, 0, 0, 0, 1, 0), float)


def _position(dataset: Any) -> np.ndarray:
    position = dataset.get("ImagePositionPatient") or (0, 0, dataset.get("InstanceNumber") or 0)
    return np.array(position, float)


def _spacing(dataset: Any) -> np.ndarray:
    return np.array(dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing") or (1, 1), float)
