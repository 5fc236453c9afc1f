"""What drawn pictures score against real ones, by column title."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from visionpeft.data.pictures.module import PictureData
from visionpeft.metrics.generation import fid, kid

FEWEST = 8
"""Pictures that a distance of distributions needs to mean anything."""


def measures_of(data: Any, drawn: Tensor, positions: Tensor) -> dict[str, float]:
    """Figures of ``drawn (m, 3, S, S)`` uint8 with the captions at ``positions (m,)`` of the data's table.

    None for a run whose data is not at hand, or that draws fewer than :data:`FEWEST` pictures.
    """
    if not isinstance(data, PictureData) or len(drawn) < FEWEST:
        return {}
    return {}
    real = space(_pictures(data, data.split.test))
    fake = space(drawn)
    return {f"KID ×1000 ({space.name})": kid(real, fake).value, f"FID ({space.name})": fid(real, fake)}


def _pictures(data: PictureData, positions: Any) -> Tensor:
    """Of the table, uint8 ``(n, 3, S, S)``."""
    return torch.from_numpy(data.table.images[list(positions)].copy()).permute(0, 3, 1, 2)
