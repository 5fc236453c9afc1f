"""A DICOM file, or a folder with the slices of one series, as a volume in scanner space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from visionpeft.errors import DataError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
UNEVEN = 0.05  # share by which the distance between slices may vary


def read_series(path: Path) -> tuple[np.ndarray, np.ndarray | None, tuple[float, ...]]:
    """Values ``(columns, rows, slices)``, the affine (RAS; None without a position) and the voxel size in mm.

    Values are rescaled by the file's slope and intercept, so that CT comes in Hounsfield units.

    Raises:
        DataError: no slices, several series, slices of different size, a missing slice, or a damaged file.
    """
    files = sorted(path.glob("*.dcm")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no .dcm file")
    slices = [_header(file) for file in files]
    if len({header.get("SeriesInstanceUID") for header in slices}) > 1:
        raise DataError(f"{path} holds slices of several series; give each a folder of its own")
    if len({(header.get("Rows"), header.get("Columns")) for header in slices}) > 1:
        raise DataError(f"the slices in {path} differ in size")
    placed = all("ImagePositionPatient" in header and "ImageOrientationPatient" in header for header in slices)
    if placed:
        slices.sort(key=_height)
    else:
        slices.sort(key=lambda header: int(header.get("InstanceNumber") or 0))
    values = np.stack([_values(header, path) for header in slices], axis=-1)
    down, across = (float(size) for size in slices[0].get("PixelSpacing", (1.0, 1.0)))
    step = _step(slices, path) if placed else float(slices[0].get("SliceThickness") or 1.0)
    return values, _affine(slices, (across, down, step)) if placed else None, (across, down, step)


def _header(file: Path) -> pydicom.Dataset:
    try:
        return pydicom.dcmread(file)
    except (InvalidDicomError, OSError, EOFError, ValueError) as error:
        raise DataError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


def _values(header: pydicom.Dataset, path: Path) -> np.ndarray:
    try:
        pixels = header.pixel_array
    except (AttributeError, RuntimeError, NotImplementedError, ValueError) as error:
        raise DataError(f"cannot decode the pixels of {header.get('filename', path)}: {error}") from error
    if pixels.ndim != 2:
        raise DataError(f"{path} has frames or colours (shape {pixels.shape}); one grey slice a file is read")
    slope, intercept = float(header.get("RescaleSlope", 1)), float(header.get("RescaleIntercept", 0))
    return (pixels.T * slope + intercept).astype(np.float32)


def _normal(header: pydicom.Dataset) -> np.ndarray:
    cosines = np.array(header.ImageOrientationPatient, float)
    return np.cross(cosines[:3], cosines[3:])


def _height(header: pydicom.Dataset) -> float:
    return float(_normal(header) @ np.array(header.ImagePositionPatient, float))


def _step(slices: list[pydicom.Dataset], path: Path) -> float:
    """Millimetres between slices; DataError if they are not evenly spaced, since then one is missing or doubled."""
    if len(slices) == 1:
        return float(slices[0].get("SliceThickness") or 1.0)
    steps = np.diff([_height(header) for header in slices])
    if steps.min() <= 0 or np.ptp(steps) > UNEVEN * steps.mean():
        raise DataError(
            f"the slices in {path} lie {steps.min():.2f} to {steps.max():.2f} mm apart: one is missing or double"
        )
    return float(steps.mean())


def _affine(slices: list[pydicom.Dataset], size: tuple[float, float, float]) -> np.ndarray:
    cosines = np.array(slices[0].ImageOrientationPatient, float)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = cosines[:3] * size[0], cosines[3:] * size[1]
    affine[:3, 2] = _normal(slices[0]) * size[2]
    affine[:3, 3] = np.array(slices[0].ImagePositionPatient, float)
    return LPS_TO_RAS @ affine
