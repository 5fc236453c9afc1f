"""From a card to a table of images: stage the files, read them, split them, check the split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from visionpeft.data.cards import Card, load_card
from visionpeft.data.fetch import stage
from visionpeft.data.raw import Raw
from visionpeft.data.readers import read
from visionpeft.data.specs import Part
from visionpeft.data.splits import divide, require_classes
from visionpeft.data.tables import ImageTable
from visionpeft.errors import DataError


def open_card(card: Card | str | Path, cache: Path | None = None) -> ImageTable:
    """Fetch (once), read and split a data set.

    Args:
        card: a card, its name, or the path of its YAML file.
        cache: where fetched files are kept; default :func:`visionpeft.files.cache_dir`.

    Raises:
        DataError: no source could be reached, a file is damaged, a class is empty, or the split is not the one
            the card pins.
    """
    card = classification_card(card)
    return split_table(card, read(card, stage(card, cache)))


def classification_card(card: Card | str | Path) -> Card:
    """The card itself, or the one of that name; DataError if it is made for another task."""
    found = card if isinstance(card, Card) else load_card(card)
    if not isinstance(found, Card):
        held = "masks: it is for `task: {name: segment}`" if found.task == "segmentation" else found.task
        raise DataError(f"data set {found.name!r} holds {held}, not images with classes")
    return found


def split_table(card: Card, raw: Raw) -> ImageTable:
    """Apply the card's split rule to what was read, and verify the pinned hash."""
    try:
        require_classes(raw.labels, raw.classes)
    except DataError as error:
        raise DataError(f"data set {card.name!r}: {error}") from None
    table = ImageTable(raw.images, raw.labels, raw.classes, _parts(card, raw), raw.keys)
    if card.split.sha256 and table.sha256 != card.split.sha256:
        raise DataError(
            f"data set {card.name!r}: the split has sha256 {table.sha256}, but the card pins {card.split.sha256}; "
            "figures would not be comparable"
        )
    found: dict[Part, int] = {part: len(table.indices(part)) for part in card.split.counts}
    if found != card.split.counts:
        raise DataError(
            f"data set {card.name!r}: the split holds {_listed(found)} images, but the published one "
            f"{_listed(card.split.counts)}; figures would not be comparable"
        )
    return table


def _listed(counts: Mapping[Part, int]) -> str:
    return ", ".join(f"{count:,} {part}" for part, count in counts.items())


def _parts(card: Card, raw: Raw) -> np.ndarray:
    rule = card.split
    if rule.test != "official":
        assert rule.val != "official"  # the card says so
        return divide(raw.keys, raw.labels, raw.classes, test=rule.test, val=rule.val, seed=rule.seed)
    found = set() if raw.official is None else set(raw.official.tolist())
    if raw.official is None or "test" not in found:
        raise DataError(f"data set {card.name!r} has no official test split: give 'split.test' as a share")
    if rule.val == "official":
        if "val" not in found:
            raise DataError(f"data set {card.name!r} has no official val split: give 'split.val' as a share")
        return raw.official
    rest = np.flatnonzero(raw.official != "test")
    parts = np.full(len(raw.labels), "test", dtype="<U5")
    keys = [raw.keys[i] for i in rest]
    parts[rest] = divide(keys, raw.labels[rest], raw.classes, test=0, val=rule.val, seed=rule.seed)
    return parts
