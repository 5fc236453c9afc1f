"""Reads ``emoji-datasource``: pictures of one vendor, named, classed and numbered by Unicode."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from visionpeft.data.captions.readers import emoji_texts
from visionpeft.data.pictures.cards import EmojiReader, PictureCollection
from visionpeft.data.pictures.found import Found
from visionpeft.data.raw import content

PERSONS = {"1F468", "1F469", "1F9D1", "2640", "2642", "200D", "FE0F"}
"""Code points that say whether a man, a woman or a person is shown, and those that join or style others."""


def emoji(collection: PictureCollection, folder: Path) -> list[Found]:
    """All emoji that the vendor draws, in Unicode's order."""
    assert isinstance(collection.reader, EmojiReader)
    vendor = collection.reader.vendor
    listed = json.loads(content(collection.images, folder, "emoji.json"))
    ordered = sorted(listed, key=lambda entry: entry["sort_order"])
    return [_found(entry, collection, folder, vendor) for entry in ordered if entry[f"has_img_{vendor}"]]


def _found(entry: dict[str, Any], collection: PictureCollection, folder: Path, vendor: str) -> Found:
    path = folder / "img" / vendor / "64" / entry["image"]
    code = entry["unified"]
    key = f"{collection.images.name}/{entry['image']}"
    return Found(key, path, emoji_texts(entry), code.lower(), kin(code), entry["subcategory"])


def kin(code: str) -> str:
    """What is left of ``1F468-200D-1F373`` (a man, cooking) and ``1F469-200D-1F373`` (a woman, cooking): ``1f373``."""
    rest = [point for point in code.split("-") if point not in PERSONS]
    return "-".join(rest or [code]).lower()
