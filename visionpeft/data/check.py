"""Looking labelled images over before training: what cannot be read, and what lies in two parts at once."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from visionpeft.data.tables import PARTS, ImageTable
from visionpeft.errors import DataError

SHOWN = 5  # sentences of one kind that are written out
SMALLEST_SIDE = 8  # pixels below which a picture shows nothing


@dataclass
class Findings:
    """What was found.

    Attributes:
        broken: what prevents training or spoils its figures, one sentence each.
        notes: what deserves a look.
    """

    broken: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check(
    table: ImageTable, official: bool, each: Callable[[Iterable[int]], Iterable[int]] = lambda indices: indices
) -> Findings:
    """Read every image of a table, and report faults instead of stopping at the first.

    Args:
        table: the images, their classes and parts.
        official: whether the parts were published: then an image in two of them is a note, since to move it would make
            figures incomparable.
        each: passes positions on, such as a progress bar.
    """
    found = Findings()
    unreadable, small = [], []
    contents: dict[bytes, list[int]] = defaultdict(list)
    for index in each(range(len(table))):
        try:
            picture = table.picture(index)
        except DataError as error:
            unreadable.append(str(error))
            continue
        if min(picture.shape[:2]) < SMALLEST_SIDE:
            small.append(f"{table.keys[index]!r} has {picture.shape[1]}×{picture.shape[0]} pixels")
        contents[hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).digest()].append(index)
    same = [indices for indices in contents.values() if len(indices) > 1]
    found.broken += [*few(unreadable), *few(_of_two_classes(table, same))]
    (found.notes if official else found.broken).extend(few(_in_two_parts(table, same)))
    found.notes += [*few(small), *_without_images(table)]
    return found


def _of_two_classes(table: ImageTable, same: Iterable[list[int]]) -> list[str]:
    return [
        f"one image has two classes: {_places(table, indices)}"
        for indices in same
        if len({int(label) for label in table.labels[indices]}) > 1
    ]


def _in_two_parts(table: ImageTable, same: Iterable[list[int]]) -> list[str]:
    """What is trained on would be tested on."""
    return [
        f"one image is in two parts: {_places(table, indices)}"
        for indices in same
        if len({str(part) for part in table.split[indices]}) > 1
    ]


def _places(table: ImageTable, indices: Iterable[int]) -> str:
    return ", ".join(f"{table.keys[i]!r} ({table.classes[table.labels[i]]}, {table.split[i]})" for i in indices)


def _without_images(table: ImageTable) -> Iterator[str]:
    for part in PARTS:
        counts = np.bincount(table.labels[table.indices(part)], minlength=len(table.classes))
        if empty := [table.classes[label] for label in np.flatnonzero(counts == 0)]:
            yield f"the {part} part has no image of {len(empty)} class(es), such as {empty[0]!r}"


def few(sentences: list[str]) -> list[str]:
    """The first :data:`SHOWN` sentences, and how many more there are."""
    more = len(sentences) - SHOWN
    return sentences[:SHOWN] + ([f"… and {more:,} more like the last"] if more > 0 else [])
