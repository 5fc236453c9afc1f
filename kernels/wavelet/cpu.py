"""The inverse wavelet transform of the factors of several bands, as one autograd function.

The transform is linear and orthogonal: backward is the analysis, and nothing is kept. All bands go together. On the
first level an ``L`` and an ``H`` band differ in their filter alone, so the filter is one number a band and phase; on
further levels every band is interpolated alike, and the details are added to the ``H`` bands. As ordinary operations
this was twenty small ones a layer, which took longer than the products of the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionpeft.kernels.eager.guard import ordinary_precision
from visionpeft.kernels.recompute.cpu import made_by


class Bands(NamedTuple):
    """What is transformed: a letter a factor, the two filters, and the levels, to ``n`` entries along ``axis``."""

    letters: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    levels: int
    n: int
    axis: int

    @property
    def coarse(self) -> int:
        """Coefficients of the last level; sizes that ``2**levels`` does not divide are padded with zeros."""
        return -(-self.n // 2**self.levels)

    @property
    def detailed(self) -> list[int]:
        """The bands that further levels add details to."""
        return [i for i, letter in enumerate(self.letters) if letter == "H"]


def synthesis(
    factors: Sequence[Tensor],
    letters: str,
    low: tuple[float, ...],
    high: tuple[float, ...],
    levels: int,
    n: int,
    axis: int,
) -> Tensor:
    """The factors after the inverse transform of one axis, side by side.

    Args:
        factors: one a band, of one rank r: ``(band, r)`` with ``axis`` 0, ``(r, band, *taps)`` with ``axis`` 1.
        letters: ``L`` or ``H`` for each factor.
        low: synthesis filter of the approximation.
        high: synthesis filter of the details.
        levels: number of levels; an ``H`` band holds the details of all, coarse to fine.
        n: size of the result along ``axis``.
        axis: where the coefficients lie.

    Returns:
        ``(n, R)`` or ``(R, n, *taps)`` with R the sum of the ranks. Gradients reach the factors, once.
    """
    bands = Bands(letters, low, high, levels, n, axis)
    return made_by(_Synthesis.apply(bands, *factors), _synthesised, tuple(factors), (bands,))


class _Synthesis(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bands: Bands, *factors: Tensor) -> Tensor:
        ctx.bands, ctx.shapes = bands, [f.shape for f in factors]
        return _synthesised(*factors, bands)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        with ordinary_precision(gradient):
            return None, *_analysed(gradient, ctx.bands, ctx.shapes)


def _synthesised(*arguments: Any) -> Tensor:
    """From the factors and, last, the :class:`Bands`."""
    *factors, bands = arguments
    axis, coarse, rank = bands.axis, bands.coarse, factors[0].shape[1 - bands.axis]
    first = factors if bands.levels == 1 else [f.narrow(axis, 0, coarse) for f in factors]
    signal = _interpolated(_side_by_side(first, axis), bands, bands.letters, rank)
    for level in range(1, bands.levels):
        size = coarse << level
        signal = _interpolated(signal, bands, "L" * len(factors), rank)
        for i in bands.detailed:
            details = _side_by_side([factors[i].narrow(axis, size - coarse, size)], axis)
            _part(signal, i * rank, rank, axis).add_(_interpolated(details, bands, "H", rank))
    signal = signal if signal.shape[1] == bands.n else signal[:, : bands.n]
    return signal[0] if axis == 0 else signal.reshape(*signal.shape[:2], *factors[0].shape[2:])


def _analysed(gradient: Tensor, bands: Bands, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """The adjoint: from the gradient of the result to those of the factors."""
    axis, size, rank = bands.axis, bands.coarse << bands.levels, shapes[0][1 - bands.axis]
    signal = gradient[None] if axis == 0 else gradient.reshape(*gradient.shape[:2], -1)
    signal = signal if size == bands.n else F.pad(signal, (0, 0, 0, size - bands.n))
    details: dict[int, list[Tensor]] = {i: [] for i in bands.detailed}
    for _ in range(1, bands.levels):
        for i in bands.detailed:
            details[i].insert(0, _decimated(_part(signal, i * rank, rank, axis), bands, "H", rank))
        signal = _decimated(signal, bands, "L" * len(shapes), rank)
    signal = _decimated(signal, bands, bands.letters, rank)
    if bands.levels == 1:
        parts = list(signal.split(rank, 2 if axis == 0 else 0))
    else:
        first = [_part(signal, i * rank, rank, axis) for i in range(len(shapes))]
        parts = [torch.cat([part, *details.get(i, ())], dim=1) for i, part in enumerate(first)]
    return [part[0] if axis == 0 else part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


# Between the two, a signal is (1, coefficients, R) for axis 0, and (R, coefficients, taps) for axis 1.


def _side_by_side(factors: Sequence[Tensor], axis: int) -> Tensor:
    signal = torch.cat(list(factors), dim=1 - axis)
    return signal[None] if axis == 0 else signal.view(*signal.shape[:2], -1)


def _part(signal: Tensor, first: int, rank: int, axis: int) -> Tensor:
    """The columns of one band."""
    return signal.narrow(2 if axis == 0 else 0, first, rank)


def _interpolated(signal: Tensor, bands: Bands, letters: str, rank: int) -> Tensor:
    """One step of the inverse transform, twice as many coefficients, with each band's own filter."""
    rows, m, columns = signal.shape
    made = signal.new_empty(rows, m, 2, columns)
    even, odd = made.unbind(2)
    for number, (shift, to_even, to_odd) in enumerate(_phases(bands, letters, rank, signal.dtype, signal.device)):
        moved = torch.roll(signal, shift, 1) if shift else signal
        if number:
            even.addcmul_(moved, to_even)
            odd.addcmul_(moved, to_odd)
        else:
            torch.mul(moved, to_even, out=even)
            torch.mul(moved, to_odd, out=odd)
    return made.view(rows, 2 * m, columns)


def _decimated(signal: Tensor, bands: Bands, letters: str, rank: int) -> Tensor:
    """The adjoint of :func:`_interpolated`."""
    even, odd = signal.unflatten(1, (-1, 2)).unbind(2)
    total = None
    for shift, from_even, from_odd in _phases(bands, letters, rank, signal.dtype, signal.device):
        part = (even * from_even).addcmul_(odd, from_odd)
        part = torch.roll(part, -shift, 1) if shift else part
        total = part if total is None else total.add_(part)
    assert total is not None
    return total


@lru_cache(maxsize=1024)
def _phases(bands: Bands, letters: str, rank: int, dtype: torch.dtype, device: torch.device) -> list:
    """``(shift, taps to even entries, taps to odd ones)``, a tap a column, broadcast over the other axes."""
    with torch.inference_mode(False):  # they serve training too, whoever asks first
        return _taps(bands, letters, rank, dtype, device)


def _taps(bands: Bands, letters: str, rank: int, dtype: torch.dtype, device: torch.device) -> list:
    filters = torch.tensor([bands.low if letter == "L" else bands.high for letter in letters], dtype=dtype)
    taps = filters.repeat_interleave(rank, 0).t().to(device)
    shape = (1, 1, -1) if bands.axis == 0 else (-1, 1, 1)
    found: dict[int, list[Tensor]] = {}
    for index, tap in enumerate(taps):
        shift, phase = divmod(index - (len(taps) // 2 - 1), 2)
        pair = found.setdefault(shift, [torch.zeros_like(tap).view(shape), torch.zeros_like(tap).view(shape)])
        pair[phase] = tap.contiguous().view(shape)
    return [(shift, *pair) for shift, pair in found.items()]
