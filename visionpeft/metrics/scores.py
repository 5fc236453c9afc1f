"""The figures of segmented cases, and what is said of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visionpeft.errors import OptionError
from visionpeft.metrics.classification import Estimate
from visionpeft.metrics.intervals import bootstrap_interval

FIGURES = ("dice", "iou", "hd95", "nsd", "volume_error", "volume")
TERTILES = ("small", "medium", "large")
_AXES = "axes"


@dataclass(frozen=True)
class Scores:
    """Figures of each case and foreground class, ``(cases, K-1)`` float64; nan where one is undefined.

    Args:
        dice: overlap, 0 to 1.
        iou: intersection over union, 0 to 1.
        hd95: 95th percentile of the surface distance, in mm (pixels where no spacing is known).
        nsd: normalised surface distance: the share of both surfaces within the tolerance of the other.
        volume_error: (predicted − true) / true volume.
        volume: true volume, in ml in 3D, in pixels in 2D.
        classes: names of the foreground classes.
        axes: 2 or 3.

    The conventions for empty masks stand in :mod:`visionpeft.metrics.segmentation`.
    """

    dice: Tensor
    iou: Tensor
    hd95: Tensor
    nsd: Tensor
    volume_error: Tensor
    volume: Tensor
    classes: tuple[str, ...]
    axes: int

    def __post_init__(self) -> None:
        for name in FIGURES:
            shape = tuple(getattr(self, name).shape)
            if len(shape) != 2 or shape[1] != len(self.classes) or shape[0] != len(self.dice):
                raise OptionError(f"scores need {name} (cases, {len(self.classes)} classes), found {shape}")

    def __len__(self) -> int:
        return len(self.dice)

    @property
    def unit(self) -> str:
        """Of the volume."""
        return "ml" if self.axes == 3 else "px"

    def primary(self) -> Tensor:
        """``(cases,)`` mean Dice over the foreground classes; never nan."""
        return self.dice.mean(1)

    def total_volume(self) -> Tensor:
        """``(cases,)`` true foreground volume."""
        return self.volume.sum(1)

    def summary(self, level: float = 0.95, draws: int = 2000, seed: int = 0) -> dict[str, Estimate]:
        """``dice``, ``iou``, ``hd95``, ``nsd``, ``volume_error`` (mean absolute) and ``volume_bias`` (mean signed).

        Each averages the classes of a case, then the cases, with a bootstrap interval over cases. With several
        foreground classes ``<figure>/<class>`` follow. A figure that no case defines is nan.
        """
        figures = {name: getattr(self, name) for name in FIGURES[:4]}
        figures |= {"volume_error": self.volume_error.abs(), "volume_bias": self.volume_error}
        found = {name: _estimate(values.nanmean(1), level, draws, seed) for name, values in figures.items()}
        if len(self.classes) > 1:
            for name, values in figures.items():
                for column, label in zip(values.T, self.classes, strict=True):
                    found[f"{name}/{label}"] = _estimate(column, level, draws, seed)
        return found

    def by_volume(self, level: float = 0.95, draws: int = 2000, seed: int = 0) -> dict[str, Estimate]:
        """Mean Dice by :func:`volume_tertiles` of the cases: ``small``, ``medium``, ``large``, where there are any.

        Cases without any foreground belong to none of them and come last as ``empty``.
        """
        tertile, dice = volume_tertiles(self.total_volume()), self.primary()
        groups = {name: dice[tertile == place] for place, name in enumerate(TERTILES)} | {"empty": dice[tertile < 0]}
        return {name: _estimate(values, level, draws, seed) for name, values in groups.items() if len(values)}

    def to_state(self) -> dict[str, Tensor]:
        """Named tensors for a safetensors file: ``<figure>/<place of the class>/<class>`` and ``axes``."""
        columns = {
            f"{name}/{place}/{label}": getattr(self, name)[:, place].contiguous()
            for name in FIGURES
            for place, label in enumerate(self.classes)
        }
        return {**columns, _AXES: torch.tensor(self.axes)}

    @staticmethod
    def from_state(state: Mapping[str, Tensor]) -> Scores:
        """The inverse of :meth:`to_state`.

        Raises:
            OptionError: the tensors are not those of scores.
        """
        places = sorted((int(key.split("/", 2)[1]), key.split("/", 2)[2]) for key in state if key.startswith("dice/"))
        labels = tuple(label for _, label in places)
        wanted = {f"{name}/{place}/{label}" for name in FIGURES for place, label in places} | {_AXES}
        if not places or wanted != set(state):
            raise OptionError(f"these are no scores; in one only: {sorted(wanted ^ set(state))[:4]}")
        columns = {
            name: torch.stack([state[f"{name}/{place}/{label}"] for place, label in places], 1) for name in FIGURES
        }
        return Scores(**columns, classes=labels, axes=int(state[_AXES]))

    @staticmethod
    def joined(parts: Sequence[Scores]) -> Scores:
        """All cases of ``parts``, in their order, as those of the folds of a cross-validation.

        Raises:
            OptionError: no parts, or parts of different classes.
        """
        if len({(part.classes, part.axes) for part in parts}) != 1:
            found = sorted({", ".join(part.classes) for part in parts})
            raise OptionError(f"scores can be joined when their classes and axes are the same, found {found}")
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in FIGURES}
        return Scores(**columns, classes=parts[0].classes, axes=parts[0].axes)


def volume_tertiles(volume: Tensor) -> Tensor:
    """``(cases,)``: 0, 1, 2 for the smaller, middle and larger third of the positive volumes, −1 where it is zero.

    Bounds are the quantiles 1/3 and 2/3; what lies on one belongs below it.
    """
    positive = volume[volume > 0].double()
    if not len(positive):
        return torch.full(volume.shape, -1)
    bounds = positive.quantile(torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))
    return torch.where(volume > 0, torch.bucketize(volume.double(), bounds), -1)


def _estimate(values: Tensor, level: float, draws: int, seed: int) -> Estimate:
    counted = values[~values.isnan()]
    if not len(counted):
        return Estimate(*[float("nan")] * 3)
    return Estimate(counted.mean().item(), *bootstrap_interval(counted, level, draws, seed))
