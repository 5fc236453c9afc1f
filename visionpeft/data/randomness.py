"""Random numbers that depend only on where they are used, so that a resumed run draws what the first would have drawn.

Philox is counter-based: ``(seed, purpose, epoch, index)`` names a stream outright and no state is carried along.
"""

from __future__ import annotations

import numpy as np

_PURPOSES = {"shuffle": 1, "augment": 2, "mix": 3}


def stream(seed: int, purpose: str, epoch: int = 0, index: int = 0) -> np.random.Generator:
    """The generator of one use: ``purpose`` is ``"shuffle"``, ``"augment"`` or ``"mix"``."""
    return np.random.Generator(np.random.Philox(key=seed, counter=[0, _PURPOSES[purpose], epoch, index]))


def shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    """The order ``(count,)`` of an epoch's examples."""
    return np.argsort(stream(seed, "shuffle", epoch).random(count), kind="stable")
