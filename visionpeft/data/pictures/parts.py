"""Which part a picture is in: by what it shows, so that the same concept is in the same part in every style."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from visionpeft.data.pictures.cards import PictureSplit
from visionpeft.data.pictures.found import Found
from visionpeft.errors import DataError


def parts_of(found: Sequence[Found], rule: PictureSplit, name: str) -> np.ndarray:
    """``(N,)`` of ``"train"``, ``"val"`` and ``"test"``; ``name`` is the card's, for messages.

    A hash of seed and kin is a number in 0 … 1: below ``test`` it is tested on, below ``test + val`` tuned on. Parts
    are therefore near their shares, not equal to them, and no picture moves when others come or go.

    Raises:
        DataError: a part is official, but no folder has its name; or the shares leave nothing to train on.
    """
    official = np.array([one.part or "train" for one in found])
    for part in ("test", "val"):
        if getattr(rule, part) == "official" and part not in official:
            raise DataError(f"data set {name!r} has no folder {part!r}: give 'split.{part}' as a share")
    test = 0.0 if rule.test == "official" else rule.test
    val = 0.0 if rule.val == "official" else rule.val
    if test + val >= 1:
        raise DataError(f"data set {name!r}: 'split' gives test {test:g} and val {val:g}, so nothing is left to train")
    place = np.array([_unit(one.kin, rule.seed) for one in found])
    drawn = np.where(place < test, "test", np.where(place < test + val, "val", "train"))
    taken = [part for part in ("test", "val") if getattr(rule, part) == "official"]
    return np.where(np.isin(official, taken), official, drawn).astype("<U5")


def _unit(kin: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}:{kin}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
