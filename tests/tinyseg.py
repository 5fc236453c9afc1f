"""The smallest real segmentation runs: MONAI U-Nets on bright discs and balls in noise, in seconds on a CPU."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
from nibabel.nifti1 import Nifti1Image

from visionpeft.pipeline import run
from visionpeft.recipe.yaml import dump
from visionpeft.runs.result import RunResult

ABOUT = {"title": "Tiny", "task": "segmentation", "licence": "CC0", "attribution": "us", "homepage": "here"}

CLASSES = ("rest", "disc")


def discs(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A uint16 picture ``(size, size)`` with bright discs in noise, and their mask."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    mask = np.zeros((size, size), bool)
    for _ in range(max(1, size**2 // 300)):
        (y, x), radius = rng.uniform(0, size, 2), rng.uniform(3, 6)
        mask |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    return (rng.normal(3000, 400, mask.shape) + 4000 * mask).astype(np.uint16), mask.astype(np.uint8)


def ball(shape: tuple[int, int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A float32 volume with one bright ball in noise, nowhere 0, and its mask."""
    rng = np.random.default_rng(seed)
    middle = [side / 2 + rng.uniform(-2, 2) for side in shape]
    axes = np.mgrid[tuple(slice(0, side) for side in shape)]
    mask = sum((axis - place) ** 2 for axis, place in zip(axes, middle, strict=True)) < 6**2
    return (rng.normal(100, 10, shape) + 80 * mask).astype(np.float32), mask.astype(np.uint8)


def pictures_card(
    folder: Path, name: str = "discs", seed: int = 0, classes: tuple[str, ...] = ("rest", "disc")
) -> Path:
    """A card of 32×32 tiles of one picture, lying in ``folder``."""
    image, mask = discs(128, seed)
    folder.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "image.tif", image)
    tifffile.imwrite(folder / "mask.tif", mask)
    regions = {"train": [[0, 0, 64, 128]], "val": [[64, 0, 96, 64]], "test": [[96, 0, 128, 128]]}
    reader = {"format": "tiles", "image": "image.tif", "mask": "mask.tif", "tile": 32, "regions": regions}
    return _card(folder / f"{name}.yaml", classes, 2, {"kind": "unit"}, reader)


def volumes_card(folder: Path, name: str = "balls") -> Path:
    """A card of five slabs of a volume ``(32, 32, 96)`` with a ball each, lying in ``folder``."""
    parts = [ball((32, 32, 19), seed) for seed in range(5)]
    image, mask = (np.concatenate(arrays, 2) for arrays in zip(*parts, strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    for file, values in (("image.nii", image), ("map.nii", 255 * mask)):
        nibabel.save(Nifti1Image(values, np.eye(4)), folder / file)
    slabs = {"train": [[0, 19], [19, 38], [38, 57]], "val": [[57, 76]], "test": [[76, 95]]}
    reader = {"format": "tissue", "image": "image.nii", "maps": ["map.nii"], "slabs": slabs}
    return _card(folder / f"{name}.yaml", ("rest", "ball"), 3, {"kind": "zscore"}, reader)


def _card(path: Path, classes: tuple[str, ...], axes: int, intensity: dict[str, Any], reader: dict[str, Any]) -> Path:
    content = {**ABOUT, "name": path.stem, "classes": list(classes), "axes": axes, "intensity": intensity}
    content |= {"reader": reader, "sources": [{"kind": "folder", "path": str(path.parent)}]}
    path.write_text(dump({**content, "split": {"test": "official", "val": "official"}}))
    return path


def recipe(card: Path, axes: int, **changes: Any) -> dict[str, Any]:
    """A U-Net from random weights, its convolutions adapted, its head and norms trained."""
    options = {"spatial_dims": axes, "in_channels": 1, "channels": [8, 16], "strides": [2], "num_res_units": 0}
    return {
        "name": "tinyseg",
        "task": {"name": "segment", **({"window": 16} if axes == 3 else {})},
        "backbone": {"name": "monai/UNet", "pretrained": False, "options": options},
        "method": {"name": "lora", "rank": 4, "alpha": 8},
        "targets": ["conv"],
        "norm": {"train": True},
        "data": {"card": str(card), "patch_size": 16 if axes == 3 else 32, "batch_size": 2},
        "trainer": {"max_steps": 40, "lr": 0.03, "accelerator": "cpu", "evaluate_every": 40},
        "logging": {"tensorboard": False, "csv": False},
        **changes,
    }


@cache
def finished(axes: int) -> RunResult:
    """One finished run in 2D or 3D; shared by a process's tests, never changed."""
    folder = Path(tempfile.mkdtemp(prefix="visionpeft-tinyseg-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    card = pictures_card(folder / "data") if axes == 2 else volumes_card(folder / "data")
    return run(recipe(card, axes), output=folder / "run", progress=False)
