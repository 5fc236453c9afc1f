"""A case with its mask in colours over it, as a PNG: the picture itself, or slices of a volume side by side."""

from __future__ import annotations

import numpy as np

from visionpeft.predict.pictures import png
from visionpeft.predict.scans import Scan

COLOURS = np.array(
    [(230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)],
    np.float32,
)
"""Of classes 1, 2, …: the palette of Okabe and Ito, which colour-blind people can tell apart; it repeats."""
OPACITY = 0.45
MOST_SLICES = 9
MOST_PIXELS = 2048  # of a picture's longer side


def overlay(scan: Scan, mask: np.ndarray) -> bytes:
    """The PNG file of ``mask (*spatial)`` over its image; of a volume, slices that hold objects, evenly spaced."""
    if mask.ndim == 2:
        step = -(-max(mask.shape) // MOST_PIXELS)
        thin = (slice(None, None, step), slice(None, None, step))
        return png(_coloured(scan.values(*thin), mask[thin]))
    planes = [_upright(scan.values(slice(None), slice(None), z), mask[..., z]) for z in _slices(mask)]
    columns = int(np.ceil(len(planes) ** 0.5))
    blank = [np.zeros_like(planes[0])] * (-len(planes) % columns)
    filled = [*planes, *blank]
    rows = [np.concatenate(filled[place : place + columns], 1) for place in range(0, len(filled), columns)]
    return png(np.concatenate(rows))


def _upright(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A slice with its second axis upwards, as radiologists' atlases show it."""
    return np.rot90(_coloured(values, mask))


def _slices(mask: np.ndarray) -> list[int]:
    occupied = np.flatnonzero(mask.any((0, 1)))
    first, last = (occupied[0], occupied[-1]) if len(occupied) else (0, mask.shape[-1] - 1)
    count = min(MOST_SLICES, last - first + 1)
    return sorted(set(np.linspace(first, last, count).round().astype(int).tolist()))


def _coloured(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """``(C, H, W)`` values, stretched over their central 98 %, with ``mask (H, W)`` over them: uint8 ``(H, W, 3)``."""
    channels = values if len(values) == 3 else values[:1]
    low, high = np.percentile(channels, (1, 99))
    grey = np.clip((channels.astype(np.float32) - low) / max(float(high - low), 1e-6), 0, 1) * 255
    picture = np.broadcast_to(grey, (3, *mask.shape)).transpose(1, 2, 0).copy()
    inside = mask > 0
    picture[inside] = (1 - OPACITY) * picture[inside] + OPACITY * COLOURS[(mask[inside] - 1) % len(COLOURS)]
    return picture.astype(np.uint8)
