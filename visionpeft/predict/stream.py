"""Sliding windows over a case that is too large to hold: one row of windows at a time, plane after plane."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import torch
from monai.data.utils import compute_importance_map
from torch import Tensor, nn
from torch.nn import functional as F

from visionpeft.tasks.windows import WINDOWS_AT_ONCE, predict_probabilities

Source = Callable[[int, int], Tensor]
"""From first and end along the first spatial axis to the normalised planes ``(1, C, end-first, *rest)``."""


@dataclass(frozen=True, eq=False)
class Windows:
    """How a case is cut: see :func:`visionpeft.tasks.windows.predict_probabilities`, whose results these are.

    Args:
        model: in eval mode.
        classes: number of classes.
        window, overlap, flips, batch: as there.
        mirrored: axes along which the case counts as mirrored; windows then begin from the other end.
    """

    model: nn.Module
    classes: int
    window: tuple[int, ...]
    overlap: float = 0.5
    flips: bool = False
    batch: int = WINDOWS_AT_ONCE
    mirrored: tuple[int, ...] = ()

    def stream(self, source: Source, shape: Sequence[int]) -> Iterator[Tensor]:
        """Yield the probabilities ``(classes, *rest)`` of each plane along the first axis of a case, in order.

        Memory holds only as many planes as the window is deep: of the input, and of one map a class (with ``flips``
        of each mirror image).
        """
        if not self.flips:
            yield from self._planes(source, tuple(shape))
            return
        mirrors = [axes for count in range(len(shape) + 1) for axes in combinations(range(len(shape)), count)]
        passes = [replace(self, flips=False, mirrored=axes).stream(source, shape) for axes in mirrors]
        for planes in zip(*passes, strict=True):
            yield torch.stack(planes).mean(0)

    def _planes(self, source: Source, shape: tuple[int, ...]) -> Iterator[Tensor]:
        window, weights = self.window, compute_importance_map(self.window, mode="gaussian", sigma_scale=0.125).float()
        weights = weights.clamp(min=max(weights.min().item(), 1e-3))  # as MONAI does: the corners still count
        pads = [self._padding(axis, extent) for axis, extent in enumerate(shape)]
        padded = [extent + sum(pad) for extent, pad in zip(shape, pads, strict=True)]
        first = self._starts(0, padded[0])
        within = [slice(before, before + extent) for (before, _), extent in zip(pads, shape, strict=True)]
        total, share = torch.zeros(self.classes, window[0], *padded[1:]), torch.zeros(window[0], *padded[1:])
        for start, following in zip(first, [*first[1:], padded[0]], strict=True):
            planes = source(start, min(start + window[0], shape[0]))
            self._add(F.pad(planes, [side for pad in reversed(pads) for side in pad]), weights, total, share)
            done = following - start
            ready = total[:, :done] / share[:done]
            ready = ready[:, within[0]] if sum(pads[0]) else ready  # padded there: this row is the only one
            yield from ready[:, :, *within[1:]].unbind(1)
            total, share = _advanced(total, done, 1), _advanced(share, done, 0)

    def _add(self, planes: Tensor, weights: Tensor, total: Tensor, share: Tensor) -> None:
        """Add the weighted probabilities of ``planes (1, C, depth, *rest)`` to ``total``, the weights to ``share``."""
        axes = [axis + 2 for axis in self.mirrored]
        begins = [self._starts(axis, extent) for axis, extent in enumerate(planes.shape[3:], start=1)]
        places = [
            tuple(slice(begin, begin + size) for begin, size in zip(corner, self.window[1:], strict=True))
            for corner in product(*begins)
        ]
        for number in range(0, len(places), self.batch):
            group = places[number : number + self.batch]
            cut = torch.cat([planes[:, :, :, *place] for place in group]).flip(axes)
            found = predict_probabilities(self.model, cut, self.classes, divisor=1).flip(axes)
            for place, one in zip(group, found, strict=True):
                total[:, :, *place] += weights * one
                share[:, *place] += weights

    def _starts(self, axis: int, extent: int) -> list[int]:
        """Where windows begin: every ``window·(1-overlap)`` voxels, the last one flush with the end."""
        last = max(extent - self.window[axis], 0)
        step = max(1, int(self.window[axis] * (1 - self.overlap)))
        found = {min(start, last) for start in range(0, last + step, step)}
        return sorted(last - start for start in found) if axis in self.mirrored else sorted(found)

    def _padding(self, axis: int, extent: int) -> tuple[int, int]:
        missing = max(self.window[axis] - extent, 0)
        less, more = missing // 2, missing - missing // 2
        return (more, less) if axis in self.mirrored else (less, more)


def _advanced(values: Tensor, by: int, axis: int) -> Tensor:
    """``values`` without its first ``by`` planes, with zeros at the end instead."""
    rest = values.narrow(axis, by, values.shape[axis] - by)
    return torch.cat([rest, torch.zeros_like(values.narrow(axis, 0, by))], axis)
