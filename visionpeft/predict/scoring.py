"""``visionpeft eval --pred DIR --label DIR``: figures of masks from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from visionpeft.errors import DataError, UserError
from visionpeft.metrics.scores import FIGURES, Scores
from visionpeft.metrics.segmentation import score_case
from visionpeft.predict.pictures import read_picture
from visionpeft.predict.scans import SUFFIXES, Scan, suffix_of
from visionpeft.predict.volumes import VolumeScan, read_nifti

READ = tuple(suffix for suffix in SUFFIXES if suffix not in (".dcm", ".jpg", ".jpeg"))  # JPEG blurs class numbers
BESIDE = ("-probabilities", "-overlay")  # what `predict` writes beside masks


def score_folders(pred: Path, label: Path, classes: Sequence[str] = ()) -> tuple[tuple[str, ...], Scores]:
    """Score the masks of ``pred`` against those of the same names in ``label``.

    Args:
        pred, label: folders (with all below them) of PNG, TIFF or NIfTI masks that hold class numbers; formats may
            differ between them. Volumes are compared in scanner order, distances are in mm of the label's spacing.
        classes: names, the background first; default: ``class 1`` … up to the largest number in the labels.

    Returns:
        The names of the cases, and their scores in the same order.

    Raises:
        UserError: a folder holds no mask, or a mask has no partner; it is named.
        DataError: two masks differ in size or place, or hold what is no class; the file is named.
    """
    predictions, labels = _masks_in(pred), _masks_in(label)
    if alone := sorted(predictions.keys() ^ labels.keys()):
        have, lack = (pred, label) if alone[0] in predictions else (label, pred)
        raise UserError(f"{have / alone[0]} has no mask of that name in {lack} (nor have {len(alone) - 1} others)")
    names = tuple(classes) or _numbered(labels.values())
    if len(names) < 2:
        raise UserError(f"--classes needs the background and at least one more, found {list(names)}")
    return tuple(labels), Scores.joined([_score(predictions[name], labels[name], names) for name in labels])


def scores_content(keys: Sequence[str], scores: Scores) -> dict[str, Any]:
    """The figures of each case and class, the means over cases and those by volume as plain data; NaN: undefined."""
    cases = []
    for row, key in enumerate(keys):
        figures = {name: getattr(scores, name)[row].tolist() for name in FIGURES}
        by_class = {label: {name: figures[name][k] for name in FIGURES} for k, label in enumerate(scores.classes)}
        cases.append({"case": key, "classes": by_class})
    estimates = {"summary": scores.summary(), "by_volume": scores.by_volume()}
    return {"cases": cases, **{part: {name: vars(e) for name, e in found.items()} for part, found in estimates.items()}}


def _masks_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        suffix = suffix_of(path)
        name = path.relative_to(folder).as_posix().removesuffix(path.name[len(path.name) - len(suffix) :])
        if path.is_file() and suffix in READ and not path.name.startswith(".") and not name.endswith(BESIDE):
            if name in found:
                raise UserError(f"{found[name]} and {path} are masks of one name")
            found[name] = path
    if not found:
        raise UserError(f"{folder} holds no mask; these are read: {', '.join(READ)}")
    return found


def _score(pred: Path, label: Path, classes: Sequence[str]) -> Scores:
    guess, truth = _read(pred), _read(label)
    if guess.shape != truth.shape:
        raise DataError(f"{pred} has shape {guess.shape}, but its label {label} has {truth.shape}")
    if isinstance(guess, VolumeScan) and isinstance(truth, VolumeScan):
        moved = np.abs(guess.image.affine - truth.image.affine).max()
        if not np.array_equal(guess.turns, truth.turns) or moved > 1e-2:
            raise DataError(f"{pred} lies elsewhere than its label {label}: their affines differ by {moved:.3g}")
    masks = [_numbers(scan, len(classes)) for scan in (guess, truth)]
    return score_case(masks[0], masks[1], classes, truth.spacing)


def _read(path: Path) -> Scan:
    suffix = suffix_of(path)
    if suffix in (".nii", ".nii.gz"):
        return read_nifti(path)
    return read_picture(path)


def _numbers(scan: Scan, classes: int | None = None) -> torch.Tensor:
    """The class numbers ``(*spatial)``.

    Raises:
        DataError: colours, fractions, or numbers outside the classes.
    """
    values = scan.values()
    if len(values) != 1:
        raise DataError(f"{scan.path} has {len(values)} channels; a mask has one number a voxel")
    whole = np.rint(values[0]).astype(np.int64)
    if not np.array_equal(whole, values[0]):
        fraction = values[0][whole != values[0]][0]
        raise DataError(f"{scan.path} holds fractions such as {fraction:.3g}; a mask has whole numbers")
    if classes is not None and whole.size and not 0 <= whole.min() <= whole.max() < classes:
        found = np.unique(whole)[:10].tolist()
        raise DataError(f"{scan.path} holds the values {found}, but the classes are 0 … {classes - 1}")
    return torch.from_numpy(whole)


def _numbered(labels: Iterable[Path]) -> tuple[str, ...]:
    largest = max(int(_numbers(_read(path)).max()) for path in labels)
    return ("background", *(f"class {number}" for number in range(1, max(largest, 1) + 1)))
