"""The definition of ``synthesis``: each factor times its band of the inverse transform."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def synthesis(
    factors: Sequence[Tensor],
    letters: str,
    low: tuple[float, ...],
    high: tuple[float, ...],
    levels: int,
    n: int,
    axis: int,
) -> Tensor:
    """The factors of the bands ``letters`` after the inverse transform of ``axis``, side by side on the other axis."""
    size = -(-n // 2**levels) * 2**levels
    coarse = size >> levels
    whole = torch.eye(size, dtype=factors[0].dtype)
    for level in range(levels):  # one level of the inverse transform, as a matrix on the first 2·half coefficients
        half = coarse << level
        step = torch.eye(size, dtype=whole.dtype)
        step[: 2 * half, :half], step[: 2 * half, half : 2 * half] = _filter(low, half), _filter(high, half)
        whole = step.to(whole) @ whole
    columns = {"L": whole[:n, :coarse], "H": whole[:n, coarse:]}
    made = [torch.tensordot(columns[band], f, dims=([1], [axis])) for band, f in zip(letters, factors, strict=True)]  # pyright: ignore
    return torch.cat([t.movedim(0, axis) for t in made], dim=1 - axis)


def _filter(taps: tuple[float, ...], half: int) -> Tensor:
    """``(2·half, half)``: column i holds the taps around sample 2i, with periodic ends."""
    matrix = torch.zeros(2 * half, half, dtype=torch.float64)
    for i in range(half):
        for index, tap in enumerate(taps):
            matrix[(2 * i + index - (len(taps) // 2 - 1)) % (2 * half), i] += tap
    return matrix
