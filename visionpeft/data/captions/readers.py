"""Readers of image–caption pairs: from folders of staged files to paths and texts. One function a format."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from visionpeft.data.captions.cards import Collection, CsvReader, EmojiReader
from visionpeft.data.captions.openclipart import openclipart
from visionpeft.data.captions.pair import Pair
from visionpeft.data.raw import IMAGE_SUFFIXES, content
from visionpeft.errors import DataError


def read_pairs(collection: Collection, images: Path, texts: Path | None = None) -> list[Pair]:
    """All pairs of a collection, in an order that is the same on every machine.

    Args:
        collection: says which format it is.
        images, texts: folders of its staged files.

    Raises:
        DataError: a picture or its caption is missing, a file is damaged, or there is no pair at all.
    """
    if collection.texts is not None:
        assert texts is not None, "staged with the images"
        found = openclipart(collection.images.name, images, texts)
    else:
        found = _READERS[collection.reader.format](collection, images)
    if not found:
        raise DataError(f"{images} holds no image–caption pair of the format {collection.reader.format!r}")
    if missing := next((pair.image for pair in found if not pair.image.is_file()), None):
        raise DataError(f"collection {collection.images.name!r}: the image {missing} is missing")
    return found


def _sidecar(collection: Collection, folder: Path) -> list[Pair]:
    pairs = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
        text = path.with_suffix(".txt")
        if not text.is_file():
            continue  # of a mirrored or shaded copy, whose caption is the original's
        caption = first_line(text)
        place = path.relative_to(folder)
        pairs.append(_pair(collection, place.as_posix(), path, (caption.rstrip("."),), *place.parent.parts))
    return pairs


def _csv(collection: Collection, folder: Path) -> list[Pair]:
    assert isinstance(collection.reader, CsvReader)
    name = collection.reader.file
    rows = csv.DictReader(content(collection.images, folder, name).decode("utf-8", errors="replace").splitlines())
    pairs = []
    for number, row in enumerate(rows, 2):
        image, caption = ((row.get(column) or "").strip() for column in ("image", "caption"))
        if not image or not caption:
            raise DataError(f"{folder / name}, line {number}: the {'caption' if image else 'image'} is missing")
        path = folder / image
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{folder / name}, line {number}: the image {image!r} lies outside of {folder}")
        pairs.append(_pair(collection, image, path, (caption,)))
    return pairs


def _emoji(collection: Collection, folder: Path) -> list[Pair]:
    assert isinstance(collection.reader, EmojiReader)
    vendor = collection.reader.vendor
    listed = json.loads(content(collection.images, folder, "emoji.json"))
    pairs = []
    for entry in sorted(listed, key=lambda entry: entry["sort_order"]):
        if not entry[f"has_img_{vendor}"]:
            continue
        path = folder / "img" / vendor / "64" / entry["image"]
        pairs.append(_pair(collection, entry["image"], path, emoji_texts(entry), entry["subcategory"]))
    return pairs


def emoji_texts(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """What an entry of ``emoji.json`` says: the Unicode name, the first short name, and all names in a row."""
    name = (entry["name"] or "").lower()
    short = [" ".join(word.replace("_", " ").replace("-", " ").split()) for word in entry["short_names"]]
    return tuple(dict.fromkeys(text for text in (name, short[0], ", ".join([name, *short])) if text))


def _pair(collection: Collection, place: str, path: Path, texts: tuple[str, ...], *further: str) -> Pair:
    return Pair(f"{collection.images.name}/{place}", path, texts, " | ".join([*texts, *further]))


def first_line(path: Path) -> str:
    """The caption in a text file beside a picture; DataError if it says nothing."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"cannot read the caption {path}: {error.strerror}") from error
    if not lines or not lines[0].strip():
        raise DataError(f"the caption {path} is empty: its first line should say what the picture shows")
    return lines[0].strip()


_READERS: dict[str, Callable[[Collection, Path], list[Pair]]] = {"sidecar": _sidecar, "csv": _csv, "emoji": _emoji}
