"""From a card of pictures to its table: stage, read, divide, decode and redraw once, check the pin."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from visionpeft.data.cards import cards, folder_of_pictures, load_card
from visionpeft.data.extent import pixels
from visionpeft.data.fetch import once, stage
from visionpeft.data.pictures.cards import PicturesCard
from visionpeft.data.pictures.decode import square
from visionpeft.data.pictures.emoji import emoji
from visionpeft.data.pictures.folder import folder
from visionpeft.data.pictures.found import Found
from visionpeft.data.pictures.parts import parts_of
from visionpeft.data.pictures.styles.apply import redrawing
from visionpeft.data.pictures.table import PictureTable, read_table, write_table
from visionpeft.errors import DataError
from visionpeft.files import cache_dir

BATCH = 64  # pictures drawn at once
_FORMAT = 1  # of the cached table
_READERS = {"emoji": emoji, "folder": folder}


def pictures_card(card: PicturesCard | str | Path) -> PicturesCard:
    """The card itself, the one of that name, or the template for a folder; DataError if it is made for another task."""
    if isinstance(card, PicturesCard):
        return card
    if str(card) not in cards() and (path := Path(card).expanduser()).is_dir():
        return folder_of_pictures(path)
    found = load_card(card)
    if not isinstance(found, PicturesCard):
        raise DataError(f"data set {found.name!r} is a card of `task: {found.task}`; `task: pictures` is needed")
    return found


def open_pictures(card: PicturesCard | str | Path, cache: Path | None = None) -> PictureTable:
    """Fetch, read, divide, decode and redraw the pictures of a card, and keep the result in the cache.

    What is kept is found again by the card and by size and time of every file: a changed folder is read anew.

    Args:
        card: a card, its name, or the path of its YAML file.
        cache: default :func:`visionpeft.files.cache_dir`.

    Raises:
        DataError: no source could be reached, there is no picture, one cannot be read or has no caption, or the split
            is not the one that the card pins.
    """
    card = pictures_card(card)
    found = read_pictures(card, cache)
    place = (cache or cache_dir()) / "datasets" / f"pictures-{card.name}-{_mark(card, found)}"
    table = read_table(once(place, lambda draft: _build(card, found, draft)))
    if card.split.sha256 and table.sha256 != card.split.sha256:
        raise DataError(
            f"data set {card.name!r}: its {len(table)} pictures have sha256 {table.sha256}, but the card pins "
            f"{card.split.sha256}; figures would not be comparable"
        )
    return table


def read_pictures(card: PicturesCard, cache: Path | None = None) -> list[Found]:
    """All pictures of a card, none of them decoded; DataError if there is none."""
    found = []
    for collection in card.collections:
        place = stage(collection.images, cache)
        some = _READERS[collection.reader.format](collection, place)
        if not some:
            raise DataError(f"{place} holds no picture for the data set {card.name!r}")
        if missing := next((one.path for one in some if not one.path.is_file()), None):
            raise DataError(f"data set {card.name!r}: the picture {missing} is missing")
        found += some
    return found


def _mark(card: PicturesCard, found: Iterable[Found]) -> str:
    content = card.model_dump_json(include={"collections", "pictures", "style", "split"}, exclude={"split": {"sha256"}})
    digest = hashlib.sha256(f"{_FORMAT}{content}".encode())
    for one in found:
        about = one.path.stat()
        digest.update(f"{astuple(one)}{about.st_size}{about.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def _build(card: PicturesCard, found: Sequence[Found], draft: Path) -> None:
    kept, counts = _kept(found, card.pictures.megapixels)
    if not kept:
        raise DataError(f"data set {card.name!r}: every picture is larger than {card.pictures.megapixels:g} megapixels")
    write_table(draft, _drawn(card, kept), kept, parts_of(kept, card.split, card.name), counts)


def _drawn(card: PicturesCard, found: Sequence[Found]) -> Iterator[np.ndarray]:
    """Batches ``(B, S, S, 3)`` of all pictures, in the card's style."""
    redraw = (lambda images: images) if card.style is None else redrawing(card.style)
    console = Console(stderr=True)
    for start in track(range(0, len(found), BATCH), f"Drawing {card.name}", console=console, transient=True):
        yield redraw(np.stack([square(one.path, card.pictures) for one in found[start : start + BATCH]]))


def _kept(found: Iterable[Found], megapixels: float | None) -> tuple[list[Found], dict[str, int]]:
    """The pictures that are not too large and not those of earlier ones; and how many there are of each kind."""
    kept, seen, large, repeated = [], set(), 0, 0
    for one in found:
        if megapixels is not None and pixels(one.path) > megapixels * 1e6:
            large += 1
            continue
        picture = hashlib.sha256(one.path.read_bytes()).digest()
        if picture in seen:
            repeated += 1
            continue
        seen.add(picture)
        kept.append(one)
    counts = {"found": len(kept) + large + repeated, "too large": large, "the picture of an earlier one": repeated}
    return kept, {reason: count for reason, count in counts.items() if count} | {"kept": len(kept)}
