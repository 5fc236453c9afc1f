"""The periodised orthogonal wavelet transform of one axis, as torch operations on a stack of columns.

Band letters: ``L`` is the approximation of the last level, ``H`` all details, coarse to fine, the order of
``pywt.wavedec``. Sizes that ``2**levels`` does not divide are padded with zeros and cropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visionpeft.errors import OptionError, did_you_mean


@dataclass(frozen=True)
class Wavelet:
    """The two synthesis filters of an orthogonal family, and the number of levels."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    levels: int

    @property
    def arguments(self) -> tuple[tuple[float, ...], tuple[float, ...], int]:
        """The fields, as the kernel takes them."""
        return self.low, self.high, self.levels

    def padded(self, n: int) -> int:
        block = 2**self.levels
        return -(-n // block) * block

    def band_size(self, letter: str, n: int) -> int:
        """Coefficients of band ``L`` or ``H`` on an axis of n."""
        coarse = self.padded(n) >> self.levels
        return coarse if letter == "L" else self.padded(n) - coarse

    def synthesis(self, coefficients: Tensor, letter: str, n: int) -> Tensor:
        """The inverse transform of one band alone: ``(band, …) -> (n, …)``, O(n) a column."""
        coarse = self.padded(n) >> self.levels
        if letter == "L":
            signal, details = coefficients, None
        else:
            signal, details = None, coefficients
        for level in range(self.levels):
            size = coarse << level
            parts = [] if signal is None else [_upsample(signal, self.low)]
            if details is not None:
                parts.append(_upsample(details[size - coarse : 2 * size - coarse], self.high))
            signal = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        assert isinstance(signal, Tensor)
        return signal[:n]

    def matrix(self, n: int, like: Tensor) -> Tensor:
        """The orthogonal transform ``T: (padded n, padded n)``: coefficients = T·signal, rows ordered L then H."""
        size = self.padded(n)
        bands = []
        for letter in "LH":
            count = self.band_size(letter, size)
            bands.append(self.synthesis(torch.eye(count, dtype=like.dtype, device=like.device), letter, size))
        return torch.cat(bands, dim=1).t()


def _upsample(signal: Tensor, taps: tuple[float, ...]) -> Tensor:
    """One synthesis step: put zeros between the samples and convolve, with periodic ends."""
    centre = len(taps) // 2 - 1
    phases: list[list[Tensor]] = [[], []]
    for index, tap in enumerate(taps):
        shift, phase = divmod(index - centre, 2)
        phases[phase].append(tap * (torch.roll(signal, shift, 0) if shift else signal))
    even, odd = (sum(terms[1:], terms[0]) for terms in phases)
    return torch.stack([even, odd], dim=1).flatten(0, 1)


def wavelet(name: str, levels: int) -> Wavelet:
    """A PyWavelets family by name.

    Raises:
        OptionError: no such wavelet, or it is not orthogonal.
    """
    import pywt

    if name not in pywt.wavelist(kind="discrete"):  # pyright: ignore[reportAttributeAccessIssue]
        known = pywt.wavelist(kind="discrete")  # pyright: ignore[reportAttributeAccessIssue]
        raise OptionError(f"wara: wavelet = {name!r} is not known to PyWavelets.{did_you_mean(name, known)}")
    family = pywt.Wavelet(name)  # pyright: ignore[reportAttributeAccessIssue]
    if not family.orthogonal:
        raise OptionError(f"wara: wavelet = {name!r} is not orthogonal; take one that is, such as haar, db2 or sym4")
    return Wavelet(tuple(family.rec_lo), tuple(family.rec_hi), levels)
