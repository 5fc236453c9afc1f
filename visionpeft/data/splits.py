"""Fixed splits and few-shot draws that depend on nothing but keys and a seed, and files that prove it.

An image's place is decided by a hash of its key, not by a random generator: the same on every machine and with every
version of every library. A draw of few shots is contained in every larger draw of the same seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visionpeft.errors import DataError, OptionError
from visionpeft.files import atomic_write


def hashed_order(keys: Iterable[object], seed: int) -> np.ndarray:
    """A shuffle of ``keys`` as positions ``(N,)``, ordered by a hash of seed and key."""
    names = [f"{seed}:{key}".encode() for key in keys]
    marks = [hashlib.blake2b(name, digest_size=8).digest() for name in names]
    return np.array(sorted(range(len(names)), key=lambda i: (marks[i], names[i])), dtype=np.int64)


def divide(
    keys: Sequence[str], labels: np.ndarray, classes: Sequence[str], *, test: float, val: float, seed: int = 0
) -> np.ndarray:
    """Divide class by class into ``"train"``, ``"val"`` and ``"test"``; shares ``test`` and ``val`` of each class.

    ``test=0`` leaves the test split to the caller. Every split gets at least one image of each class.

    Raises:
        DataError: a class is too small to be divided.
    """
    parts = np.full(len(keys), "train", dtype="<U5")
    asked = [("test", test), ("val", val)]
    for label, name in enumerate(classes):
        members = np.flatnonzero(labels == label)
        counts = {part: max(1, round(share * len(members))) for part, share in asked if share > 0}
        if len(members) <= sum(counts.values()):
            raise DataError(
                f"class {name!r} has {len(members)} image(s); at least {sum(counts.values()) + 1} are needed "
                f"for train, {' and '.join(counts)}"
            )
        order, start = members[hashed_order([keys[i] for i in members.tolist()], seed)], 0
        for part, count in counts.items():
            parts[order[start : start + count]] = part
            start += count
    return parts


def few_shot(
    labels: np.ndarray,
    shots: int,
    seed: int,
    *,
    within: np.ndarray | None = None,
    classes: Sequence[str] | None = None,
    part: str = "data",
) -> np.ndarray:
    """Draw ``shots`` images of each class; ascending positions in ``labels``.

    Args:
        labels: int ``(N,)``.
        shots: images a class, at least 1.
        seed: chooses the draw.
        within: positions to draw from, such as those of the train split; default all.
        classes: names for messages; also says which labels must occur.
        part: what the pool is called in messages.

    Raises:
        OptionError: ``shots`` is less than 1.
        DataError: one class only, an empty class, or a class with fewer images than ``shots``.
    """
    if shots < 1:
        raise OptionError(f"shots is {shots}; it must be at least 1")
    pool = np.arange(len(labels)) if within is None else np.asarray(within)
    names = [str(label) for label in range(int(labels.max()) + 1)] if classes is None else list(classes)
    require_classes(labels[pool], names)
    chosen = []
    for label, name in enumerate(names):
        members = pool[labels[pool] == label]
        if len(members) < shots:
            found = f"class {name!r} has {len(members)} image(s) in the {part}, fewer than the {shots} shots asked for"
            fewest = np.bincount(labels[pool], minlength=len(names)).min()
            raise DataError(f"{found}; the smallest class there has {fewest}")
        chosen.append(members[hashed_order(members, seed)[:shots]])
    return np.sort(np.concatenate(chosen))


def require_classes(labels: np.ndarray, classes: Sequence[str]) -> None:
    """Raise DataError unless there are two or more classes and each has an image."""
    counts = np.bincount(labels, minlength=len(classes)) if len(labels) else np.zeros(len(classes), int)
    if len(labels) < 2:
        raise DataError(f"a classifier needs images of two classes; found {len(labels)} image(s)")
    if np.count_nonzero(counts) < 2:
        raise DataError(f"all {len(labels)} images belong to class {classes[int(counts.argmax())]!r}; two are needed")
    if empty := [name for name, count in zip(classes, counts, strict=True) if count == 0]:
        raise DataError(f"no image of class {', '.join(map(repr, empty))}")


def split_digest(keys: Sequence[str], labels: np.ndarray, parts: np.ndarray) -> str:
    """sha256 over which image, with which label, lies in which split."""
    lines = sorted(f"{key}\t{label}\t{part}\n" for key, label, part in zip(keys, labels, parts, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Split:
    """What one run trained, tuned and tested on: positions in the data set's table.

    ``classes`` says which classes the table holds: ``"all"`` of the card, or its ``"base"`` or ``"new"`` half.
    """

    card: str
    seed: int
    shots: int | None
    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]
    classes: str = "all"

    @property
    def content(self) -> dict[str, Any]:
        """All fields, as they are hashed and written; ``classes`` only where it is a half, as before it existed."""
        fields = asdict(self)
        if self.classes == "all":
            del fields["classes"]
        return fields

    @property
    def sha256(self) -> str:
        """Hash of :attr:`content`."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()


def save_split(path: str | Path, split: Split) -> Path:
    """Write a split with its hash as JSON, atomically."""
    return atomic_write(path, json.dumps({**split.content, "sha256": split.sha256}, indent=1) + "\n")


def load_split(path: str | Path) -> Split:
    """Read a split.

    Raises:
        DataError: the file is missing or damaged, or its content does not agree with its hash.
    """
    try:
        content = json.loads(Path(path).read_text())
        recorded = content.pop("sha256")
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        split = Split(**fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not a split file: {error}") from error
    if split.sha256 != recorded:
        raise DataError(f"{path} was changed after it was written: its hash is {split.sha256}, recorded {recorded}")
    return split
