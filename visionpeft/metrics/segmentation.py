"""How well masks agree, case by case: overlap, surface distance and volume, by MONAI and torchmetrics.

Conventions where a class is missing from a case:

==================  ====  ===  =============================  ===  ===================
truth, prediction   Dice  IoU  HD95                           NSD  relative volume
==================  ====  ===  =============================  ===  ===================
both empty          1     1    nan                            nan  nan
truth alone empty   0     0    diagonal of the image, in mm   0    nan
guess alone empty   0     0    diagonal of the image, in mm   0    −1
==================  ====  ===  =============================  ===  ===================

A nan is not counted in a mean. The diagonal is the largest distance the image allows: leaving such cases out would
reward a model that misses objects.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from monai.metrics.utils import get_edge_surface_distance
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from visionpeft.errors import DataError
from visionpeft.metrics.scores import Scores

TOLERANCE = 2.0


def score_case(
    prediction: Tensor,
    truth: Tensor,
    classes: Sequence[str],
    spacing: Sequence[float],
    tolerance: float = TOLERANCE,
) -> Scores:
    """The figures of one case.

    Args:
        prediction: ``(*spatial)`` integers, 0 … K-1, in two or three axes.
        truth: likewise.
        classes: the K names, background first; the background gets no figures.
        spacing: voxel sides in mm, one an axis; ones measure in pixels.
        tolerance: how far a surface voxel may lie from the other surface and still count as right in the normalised
            surface distance; in the unit of ``spacing``, hence by default 2 mm, or 2 pixels of a picture.

    Surfaces are the foreground voxels with a face towards the outside. HD95 is the larger of the two directed 95th
    percentiles of the distances between them.

    Raises:
        DataError: unequal shapes, a spacing that is no positive side for each axis, or labels outside the classes.
    """
    _check(prediction, truth, classes, spacing)
    prediction, truth = prediction.cpu(), truth.cpu()
    overlap = _Overlap(prediction, truth, len(classes))
    surfaces = [
        _surface_figures(prediction == label, truth == label, spacing, tolerance) for label in range(1, len(classes))
    ]
    hd95, nsd = torch.tensor(surfaces, dtype=torch.float64).T
    # A volume in ml counts mm³ / 1000; a picture has no depth, so its areas stay pixels.
    unit = math.prod(spacing) / 1000 if truth.ndim == 3 else 1.0
    return Scores(
        dice=overlap.dice()[None],
        iou=overlap.iou()[None],
        hd95=hd95[None],
        nsd=nsd[None],
        volume_error=overlap.volume_error()[None],
        volume=overlap.truth[None] * unit,
        classes=tuple(classes[1:]),
        axes=truth.ndim,
    )


def dice_by_class(prediction: Tensor, truth: Tensor, classes: int) -> Tensor:
    """Dice of each foreground class ``(classes-1,)`` of one case; no surfaces, so it is cheap."""
    return _Overlap(prediction, truth, classes).dice()


class _Overlap:
    """Voxel counts of each foreground class: of the truth, the prediction and both."""

    def __init__(self, prediction: Tensor, truth: Tensor, classes: int) -> None:
        counts = multiclass_confusion_matrix(prediction, truth, classes, validate_args=False).double()
        self.truth, self.guess, self.both = counts.sum(1)[1:], counts.sum(0)[1:], counts.diagonal()[1:]

    def dice(self) -> Tensor:
        return torch.where(self.truth + self.guess > 0, 2 * self.both / (self.truth + self.guess), 1.0)

    def iou(self) -> Tensor:
        union = self.truth + self.guess - self.both
        return torch.where(union > 0, self.both / union, 1.0)

    def volume_error(self) -> Tensor:
        return torch.where(self.truth > 0, (self.guess - self.truth) / self.truth, torch.nan)


def _surface_figures(
    prediction: Tensor, truth: Tensor, spacing: Sequence[float], tolerance: float
) -> tuple[float, float]:
    """HD95 and normalised surface distance of one class, from the same distances."""
    if not (prediction.any() or truth.any()):
        return math.nan, math.nan
    if not (prediction.any() and truth.any()):
        return math.dist([0.0] * truth.ndim, [n * side for n, side in zip(truth.shape, spacing, strict=True)]), 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 passes itself an argument that it deprecates
        distances = get_edge_surface_distance(prediction, truth, spacing=tuple(spacing), symmetric=True)[1]
    within = sum(int((some <= tolerance).sum()) for some in distances)
    hd95 = max(some.double().quantile(0.95).item() for some in distances)
    return hd95, within / sum(len(some) for some in distances)


def _check(prediction: Tensor, truth: Tensor, classes: Sequence[str], spacing: Sequence[float]) -> None:
    if prediction.shape != truth.shape or truth.ndim not in (2, 3):
        raise DataError(
            f"a prediction and its mask need equal shapes of two or three axes, found {tuple(prediction.shape)} and "
            f"{tuple(truth.shape)}"
        )
    if len(spacing) != truth.ndim or not all(math.isfinite(side) and side > 0 for side in spacing):
        raise DataError(f"spacing needs {truth.ndim} positive voxel sides in mm, found {list(spacing)}")
    for name, mask in (("prediction", prediction), ("mask", truth)):
        if mask.is_floating_point() or (mask.numel() and not 0 <= int(mask.min()) <= int(mask.max()) < len(classes)):
            found = mask.unique()[:10].tolist()
            raise DataError(f"the {name} holds the values {found}, but its classes are 0 … {len(classes) - 1}")
