"""The definition of ``tucker``, by ordinary autograd."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def tucker(core: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """``core (R, r_0, r_1, …)`` times ``factors[j] (n_j, r_j)`` along axis ``j + 1``; further axes stay as they are."""
    for axis, factor in enumerate(factors, 1):
        core = (core.movedim(axis, -1) @ factor.t()).movedim(-1, axis)
    return core
