"""The template card ``pictures`` for a folder that is named itself."""

from __future__ import annotations

from pathlib import Path

from visionpeft.data.pictures.cards import PicturesCard
from visionpeft.data.pictures.folder import METADATA, pictures_below
from visionpeft.data.raw import IMAGE_SUFFIXES
from visionpeft.data.sources import FolderSource
from visionpeft.data.tables import PARTS

FEW = 20
"""A folder with fewer pictures, such as those of one subject, is trained on whole."""


def own_card(template: PicturesCard, folder: Path) -> PicturesCard:
    """The template for ``folder``; its parts are those that have a folder, and nothing is kept from :data:`FEW`."""
    name, title = folder.resolve().name, f"Pictures in {folder}"
    source = FolderSource(kind="folder", path=str(folder.resolve()))
    (collection,) = template.collections
    images = collection.images.model_copy(update={"name": name, "title": title, "sources": (source,)})
    official = {part: "official" for part in ("val", "test") if (folder / part).is_dir()}
    few = len(pictures_below(folder)) < FEW
    split = template.split.model_copy(update={"test": 0.0, "val": 0.0} if few and not official else official)
    changes = {"collections": (collection.model_copy(update={"images": images}),), "split": split}
    return template.model_copy(update={"name": name, "title": title, **changes})


def shows_pictures(folder: Path) -> bool:
    """Whether pictures with or without captions lie here, and not classes of pictures in a folder each."""
    if any((place / METADATA).is_file() for place in (folder, *(folder / part for part in PARTS))):
        return True
    inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if any(path.is_dir() for path in inside):
        return False
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in inside)
