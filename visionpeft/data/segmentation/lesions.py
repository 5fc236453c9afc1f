"""Simulated haematoma-like lesions of controlled volume in a real T1 template, as slices of synthetic patients.

For each patient, all drawn from ``(seed, number)``:

1. a centre inside the brain, within the patient's slab along the axis of every view;
2. a volume V: the patients of a slab take the quantiles of a log-uniform law, so that all sizes occur everywhere;
3. a shape: the V millilitres of brain nearest to the centre, by the distance of a randomly turned ellipsoid that a
   smooth random field distorts (hence the volume is exact, however irregular the surface);
4. an appearance (:class:`~visionpeft.data.segmentation.specs.Lesion`): light, light in a dark rim, or half and half,
   mottled, with a soft edge;
5. for each view, the slice through the centre, turned, scaled and bent in its plane, with a gamma, a bias field and
   Rician noise (:class:`~visionpeft.data.segmentation.specs.Scanner`). The mask goes through the same map.

The lesions are simulated and the anatomy is one averaged brain: figures on these cards compare methods with each other,
and say nothing about patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from visionpeft.data.segmentation.cards import SegmentationCard
from visionpeft.data.segmentation.cases import Entry, Sample
from visionpeft.data.segmentation.specs import Lesion, LesionsReader, Patients, Scanner, View
from visionpeft.data.segmentation.volumes import nifti
from visionpeft.errors import DataError

Slab = dict[View, tuple[float, float]]
AXIS: dict[View, int] = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True, eq=False)
class Head:
    """The template ``(X, Y, Z)``: millimetres a voxel, where voxel 0 lies, the brain's mean and its voxels (N, 3)."""

    values: np.ndarray
    spacing: float
    origin: np.ndarray
    mean: float
    brain: np.ndarray


@dataclass(frozen=True)
class Patient:
    """One synthetic patient: where the slab is, what is drawn from which seed, and the lesion's volume."""

    slab: Slab
    seed: tuple[int, int]
    volume_ml: float


def lesions(card: SegmentationCard, folder: Path) -> list[Entry]:
    """One case for each patient and view; the group is the slab, which patients of one part share."""
    spec = card.reader
    assert isinstance(spec, LesionsReader)
    head = _shrunk(*nifti(card, folder, spec.image), spec.shrink)
    entries = []
    for part, patients in spec.patients.items():
        if missing := [view for view in spec.views for slab in patients.slabs if view not in slab]:
            raise DataError(
                f"data set {card.name!r}: a slab of the {part} part has no range for the view {missing[0]!r}"
            )
        for number in range(patients.count):
            patient = _patient(patients, number, spec.lesion)
            group = f"{part} slab {number % len(patients.slabs)}"
            for view in spec.views:
                key = f"{part} {number:03} {view} {patient.volume_ml:.1f} ml"
                entries.append(Entry(key, group, partial(_slice, head, spec, patient, view), part))
    return entries


def _shrunk(values: np.ndarray, affine: np.ndarray, factor: int) -> Head:
    """Average ``factor`` voxels a side; what does not fill a block is cut off."""
    shape = [side // factor for side in values.shape]
    blocks = values[tuple(slice(side * factor) for side in shape)].astype(np.float32)
    small = blocks.reshape([size for side in shape for size in (side, factor)]).mean((1, 3, 5))
    spacing = float(affine[0, 0])
    origin = affine[:3, 3] + spacing * (factor - 1) / 2
    mean = float(small[small > 0].mean())
    return Head(small, spacing * factor, origin, mean, np.argwhere(small > 0.5 * mean))


def _patient(patients: Patients, number: int, lesion: Lesion) -> Patient:
    slabs = len(patients.slabs)
    count = -(-(patients.count - number % slabs) // slabs)  # patients of this slab
    low, high = np.log(lesion.volume_ml)
    volume = float(np.exp(low + (high - low) * (number // slabs + 0.5) / count))
    return Patient(patients.slabs[number % slabs], (patients.seed, number), volume)


def _slice(head: Head, spec: LesionsReader, patient: Patient, view: View) -> Sample:
    """The slice of ``view`` through the centre of the lesion, and its mask."""
    rng = np.random.default_rng(patient.seed)
    centre = _centre(head, patient.slab, spec.views, rng)
    box, order = _shape(head, centre, patient.volume_ml, spec.lesion.irregularity, rng)
    values, mask = head.values.copy(), np.zeros(head.values.shape, np.uint8)
    mask[box] = order >= 0
    values[box] = _drawn(head.values[box], order, head.mean, head.spacing, spec.lesion, rng)
    axis = AXIS[view]
    at = int(centre[axis])
    scanner_rng = np.random.default_rng((*patient.seed, axis))
    planes = [_framed(np.take(plane, at, axis), spec.size) for plane in (values, mask)]
    picture, truth = _scanned(planes[0], planes[1], head, spec.scanner, scanner_rng)
    return Sample(picture[None], truth, (head.spacing,) * 2)


def _centre(
    head: Head, slab: dict[View, tuple[float, float]], views: tuple[View, ...], rng: np.random.Generator
) -> np.ndarray:
    """A brain voxel ``(3,)`` whose place lies in the slab along the axis of every view."""
    places = head.brain
    for view in views:
        axis, (low, high) = AXIS[view], slab[view]
        millimetres = head.origin[axis] + head.spacing * places[:, axis]
        if view == "sagittal":
            millimetres = np.abs(millimetres)
        places = places[(millimetres >= low) & (millimetres <= high)]
    if not len(places):
        raise DataError(f"no voxel of the brain lies in the slab {slab}")
    return places[rng.integers(len(places))]


def _shape(
    head: Head, centre: np.ndarray, volume_ml: float, irregularity: float, rng: np.random.Generator
) -> tuple[tuple[slice, ...], np.ndarray]:
    """A box around the lesion, and the rank of its voxels: ``0 … 1`` from the centre outwards, -1 outside."""
    count = max(1, round(volume_ml * 1000 / head.spacing**3))
    radius = (3 * count / (4 * np.pi)) ** (1 / 3)  # in voxels
    reach = int(np.ceil(2.2 * radius)) + 2
    box = tuple(slice(max(0, c - reach), c + reach + 1) for c in centre.tolist())
    brain = head.values[box] > 0
    corner = np.array([side.start for side in box])
    offsets = np.indices(brain.shape) + (corner - centre)[:, None, None, None]
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    stretch = np.exp(rng.uniform(-0.35, 0.35, 3))
    distance = np.linalg.norm(np.tensordot(turn / stretch[:, None], offsets, 1), axis=0)
    distance = distance * np.exp(irregularity * _smooth(brain.shape, 0.6 * radius, rng))
    distance[~brain] = np.inf
    count = min(count, int(brain.sum()))
    nearest = np.argsort(distance, axis=None, kind="stable")[:count]
    rank = np.full(distance.size, -1.0)
    rank[nearest] = np.arange(count) / count
    return box, rank.reshape(brain.shape)


def _drawn(
    tissue: np.ndarray, rank: np.ndarray, mean: float, spacing: float, lesion: Lesion, rng: np.random.Generator
) -> np.ndarray:
    """The tissue of the box with the lesion in it; ``rank`` as :func:`_shape` gives it."""
    inside = rank >= 0
    light = np.ones(tissue.shape, bool)
    if lesion.appearance == "rim":
        light = rank < 1 - lesion.rim
    elif lesion.appearance == "mix":
        slope = np.tensordot(rng.normal(size=3), np.indices(tissue.shape), 1)
        light = slope > np.median(slope[inside])
    values = mean * (1 + lesion.contrast * np.where(light, 1.0, -1.0))
    values = values + mean * lesion.texture * _smooth(tissue.shape, 0.7, rng)
    blur = lesion.edge / spacing
    cover = ndimage.gaussian_filter(inside.astype(float), blur)
    return np.where(tissue > 0, cover * ndimage.gaussian_filter(values, blur / 2) + (1 - cover) * tissue, tissue)


def _framed(plane: np.ndarray, size: int) -> np.ndarray:
    """Cut or pad both axes to ``size`` around the middle."""
    for axis, side in enumerate(plane.shape):
        start = max(0, (side - size) // 2)
        plane = np.take(plane, np.arange(start, start + min(side, size)), axis)
    before = [(size - side) // 2 for side in plane.shape]
    return np.pad(plane, [(b, size - side - b) for b, side in zip(before, plane.shape, strict=True)])


def _scanned(
    picture: np.ndarray, mask: np.ndarray, head: Head, scanner: Scanner, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Another head and another acquisition: the plane warped, then gamma, bias field and Rician noise in the brain."""
    where = _warp(picture.shape, head.spacing, scanner, rng)
    picture = ndimage.map_coordinates(picture, where, order=1)
    mask = ndimage.map_coordinates(mask, where, order=0)
    brain = picture > 0.02 * head.mean
    level = (np.maximum(picture, 0) / head.mean) ** rng.uniform(*scanner.gamma)
    field = _smooth(picture.shape, picture.shape[0] / 6, rng)
    level = level * (1 + scanner.bias * field / max(np.abs(field).max(), 1e-6))
    real, imaginary = rng.normal(0, scanner.noise, (2, *picture.shape))
    return np.where(brain, head.mean * np.hypot(level + real, imaginary), 0).astype(np.float32), mask


def _warp(shape: tuple[int, ...], spacing: float, scanner: Scanner, rng: np.random.Generator) -> np.ndarray:
    """Where each pixel ``(2, H, W)`` is taken from: turned and scaled about the middle, then bent."""
    angle = np.deg2rad(rng.uniform(-scanner.rotate, scanner.rotate))
    scale = 1 + rng.uniform(-scanner.scale, scanner.scale, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    middle = (np.array(shape) - 1)[:, None, None] / 2
    bend = np.stack([_smooth(shape, shape[0] / 8, rng) for _ in shape]) * scanner.bend / spacing / 2
    return np.tensordot(turn, np.indices(shape) - middle, 1) + middle + bend


def _smooth(shape: tuple[int, ...], width: float, rng: np.random.Generator) -> np.ndarray:
    """A random field of mean 0 and standard deviation 1: white noise blurred by ``width`` voxels."""
    field = ndimage.gaussian_filter(rng.normal(size=shape), width, truncate=3.0)
    field -= field.mean()
    return field / max(float(field.std()), 1e-9)
