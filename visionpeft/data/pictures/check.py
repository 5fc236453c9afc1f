"""Looking pictures over before a training: what cannot be read, what was converted, what deserves a look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from visionpeft.data.check import Findings, few
from visionpeft.data.extent import UNREADABLE
from visionpeft.data.pictures.cards import PicturesCard
from visionpeft.data.pictures.decode import square
from visionpeft.data.pictures.found import Found
from visionpeft.data.pictures.open import open_pictures, read_pictures
from visionpeft.data.pictures.table import PictureTable
from visionpeft.data.tables import PARTS
from visionpeft.errors import DataError

Each = Callable[[Sequence[Found]], Iterable[Found]]


def check_pictures(card: PicturesCard, each: Each = lambda found: found) -> tuple[PictureTable | None, Findings]:
    """Open a card of pictures; where that fails, name every picture that cannot be read instead of the first.

    Args:
        card: the card.
        each: passes pictures on, such as a progress bar.

    Raises:
        DataError: there is no picture, no source, a caption is missing, or the split is not the pinned one.
    """
    found = read_pictures(card)
    findings = Findings(notes=[*_converted(card, found)])
    try:
        table = open_pictures(card)
    except DataError:
        findings.broken += few([*_unreadable(card, each(found))])
        if not findings.broken:
            raise
        return None, findings
    findings.notes += _remarks(table)
    return table, findings


def _unreadable(card: PicturesCard, found: Iterable[Found]) -> Iterator[str]:
    for one in found:
        try:
            square(one.path, card.pictures)
        except DataError as error:
            yield str(error)


def _converted(card: PicturesCard, found: Iterable[Found]) -> Iterator[str]:
    """What the pictures' headers say, a sentence for each kind that is not plain RGB of 8 bits and the stored size."""
    kinds = Counter(kind for one in found for kind in _kinds(one.path, card.pictures.size))
    for kind, count in sorted(kinds.items()):
        yield f"{count:,} picture(s) {kind}"


def _kinds(path: Path, size: int) -> Iterator[str]:
    try:
        with Image.open(path) as picture:
            if getattr(picture, "n_frames", 1) > 1:
                yield "with several frames: the first is taken"
            if "A" in picture.getbands() or "transparency" in picture.info:
                yield "with transparency: drawn on white"
            if picture.mode not in _PLAIN:
                yield _MODES.get(picture.mode, f"of mode {picture.mode}: become RGB")
            if min(picture.size) < size:
                yield f"smaller than {size} pixels: enlarged"
    except UNREADABLE:
        return  # opening the data set says what is wrong


_PLAIN = {"RGB", "RGBA"}
_MODES = {
    "1": "in black and white: become RGB",
    "L": "in grey: become RGB",
    "LA": "in grey: become RGB",
    "P": "with a palette: become RGB",
    "CMYK": "in CMYK: become RGB, without their colour profile",
    "I;16": "with 16 bits a value: the upper 8 are kept",
    "I;16B": "with 16 bits a value: the upper 8 are kept",
}


def _remarks(table: PictureTable) -> Iterator[str]:
    yield from (f"{count:,} left out: {why}" for why, count in table.counts.items() if why not in ("found", "kept"))
    if silent := sum(not any(texts) for texts in table.texts):
        yield f"{silent:,} without a caption: give one for all in the recipe, `data: {{caption: a photo of sks dog}}`"
    yield from (f"the {part} part has no picture" for part in PARTS if not len(table.indices(part)))
