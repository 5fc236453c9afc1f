"""One picture before it is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Found:
    """A picture, and what its collection says of it.

    Attributes:
        key: names the picture on every machine: the collection, and its path there.
        path: its file.
        texts: captions that say the same in other words; one empty text where nothing is said.
        concept: names what is shown; the same in every style and vendor.
        kin: what decides the part: concepts of one kin, such as a man and a woman at the same work, stay together.
        label: name of its class.
        part: ``"train"``, ``"val"`` or ``"test"``, if its place says so.
    """

    key: str
    path: Path
    texts: tuple[str, ...]
    concept: str
    kin: str
    label: str
    part: str | None = None
