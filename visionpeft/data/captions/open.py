"""From a captions card to a table of pairs: stage, read, keep out the held-out concepts, decode once, check the pin."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from visionpeft.data.captions.cards import CaptionsCard
from visionpeft.data.captions.concepts import Concepts, stems
from visionpeft.data.captions.pair import Pair
from visionpeft.data.captions.readers import read_pairs
from visionpeft.data.cards import load_card
from visionpeft.data.extent import UNREADABLE, pixels
from visionpeft.data.fetch import once, stage
from visionpeft.data.open import open_card
from visionpeft.data.tables import ImageTable
from visionpeft.errors import DataError
from visionpeft.files import cache_dir

MAX_PIXELS = 20_000_000
"""Larger pictures are left out before they are decoded: some of Open Clip Art's have 600 megapixels."""
_SELECTING = {"collections", "pairs", "never_shown", "validation", "test"}
_FORMAT = 1  # of the cached table


@dataclass(frozen=True, eq=False)
class PairTable:
    """Pairs in memory.

    Attributes:
        images: uint8 ``(N, size, size, 3)``, fitted into a white square; on disk, read as needed.
        texts: the captions of every picture, at least one each.
        keys: N names that stay the same between machines.
        counts: what was found, left out (by reason) and kept.
    """

    images: np.ndarray
    texts: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...]
    counts: dict[str, int]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def sha256(self) -> str:
        """Hash of the keys and all their texts: what a card pins."""
        lines = (f"{key}\t{json.dumps(texts)}\n" for key, texts in zip(self.keys, self.texts, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def as_images(self) -> ImageTable:
        """The pictures as a table whose labels are the positions of the pairs."""
        count = len(self)
        return ImageTable(self.images, np.arange(count), (), np.full(count, "train", dtype="<U5"), self.keys)


def captions_card(card: CaptionsCard | str | Path) -> CaptionsCard:
    """The card itself, or the one of that name; DataError if it is made for another task."""
    found = card if isinstance(card, CaptionsCard) else load_card(card)
    if not isinstance(found, CaptionsCard):
        raise DataError(f"data set {found.name!r} has no captions: `task: {{name: align}}` needs a captions card")
    return found


def open_pairs(card: CaptionsCard | str | Path, cache: Path | None = None) -> PairTable:
    """Fetch, read, filter and decode (all once) the pairs of a card.

    Args:
        card: a card, its name, or the path of its YAML file.
        cache: where fetched files and decoded pictures are kept; default :func:`visionpeft.files.cache_dir`.

    Raises:
        DataError: no source could be reached, a file is damaged, no pair is left, or the pairs that are left are not
            the ones the card pins.
    """
    card = captions_card(card)
    content = card.model_dump_json(include=_SELECTING, exclude={"pairs": {"sha256"}})
    mark = hashlib.sha256(f"{_FORMAT}{content}".encode()).hexdigest()[:12]
    place = (cache or cache_dir()) / "datasets" / f"pairs-{card.name}-{mark}"
    table = _read(once(place, lambda draft: _write(card, cache, draft)))
    if card.pairs.sha256 and table.sha256 != card.pairs.sha256:
        raise DataError(
            f"data set {card.name!r}: its {len(table)} pairs have sha256 {table.sha256}, but the card pins "
            f"{card.pairs.sha256}; figures would not be comparable"
        )
    return table


def chosen(
    card: CaptionsCard, found: Iterable[Pair], never_shown: Iterable[Path] = ()
) -> tuple[list[Pair], dict[str, int]]:
    """The pairs that the card keeps, and how many each rule leaves out.

    A pair is left out if anything said of it mentions a held-out concept, if its picture is larger than
    :data:`MAX_PIXELS`, is that of an earlier pair or one of ``never_shown``, or if there are enough pairs like it.
    """
    rules = _Rules(card, never_shown)
    kept, counts = [], Counter[str]()
    for pair in found:
        reason = rules.against(pair)
        counts[reason or "kept"] += 1
        if reason is None:
            kept.append(pair)
    if not kept:
        raise DataError(f"data set {card.name!r}: every pair mentions a held-out concept, so none is left")
    return kept, {"found": counts.total(), **counts}


class _Rules:
    """Asked of one pair after the other; remembers what it has let pass."""

    def __init__(self, card: CaptionsCard, never_shown: Iterable[Path]):
        self._most = card.pairs.alike
        self._unseen = {
            part: Concepts(word for held in sets for words in held.concepts.values() for word in words)
            for part, sets in (("test", card.test.values()), ("validation", (card.validation,)))
        }
        self._alike: Counter[tuple[str, ...]] = Counter()
        self._pictures = {_mark(path): "a picture of an evaluation card" for path in never_shown}

    def against(self, pair: Pair) -> str | None:
        """Why the pair is left out; None keeps it."""
        for part, concepts in self._unseen.items():
            if concepts.mentioned(pair.about):
                return f"mentions a concept of the {part} classes"
        if pixels(pair.image) > MAX_PIXELS:
            return "picture too large"
        picture = _mark(pair.image)
        if reason := self._pictures.get(picture):
            return reason
        likeness = (pair.folder, *stems(pair.texts[0]))
        if self._alike[likeness] >= self._most:
            return "enough pairs like it"
        self._pictures[picture] = "the picture of an earlier pair"
        self._alike[likeness] += 1
        return None


def _mark(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def fitted(path: Path, size: int) -> np.ndarray:
    """A picture as uint8 ``(size, size, 3)``: scaled to the square, transparency and margins white.

    Raises:
        DataError: the file is missing, damaged, or no image.
    """
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGBA")
    except UNREADABLE as error:
        raise DataError(f"cannot read the image {path}: {error}") from error
    ratio = size / max(picture.size)
    shape = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
    picture = picture.resize(shape, Image.Resampling.BICUBIC)  # Pillow's averages where it shrinks
    square = Image.new("RGBA", (size, size), "white")
    square.alpha_composite(picture, ((size - shape[0]) // 2, (size - shape[1]) // 2))
    return np.asarray(square.convert("RGB"))


def _staged(card: CaptionsCard, cache: Path | None) -> Iterator[Pair]:
    for collection in card.collections:
        texts = stage(collection.texts, cache) if collection.texts else None
        yield from read_pairs(collection, stage(collection.images, cache), texts)


def _never_shown(card: CaptionsCard, cache: Path | None) -> Iterator[Path]:
    for name in card.never_shown:
        table = open_card(name, cache)
        if isinstance(table.images, np.ndarray):
            raise DataError(f"data set {card.name!r}: never_shown names {name!r}, whose pictures are no files")
        yield from table.images


def _write(card: CaptionsCard, cache: Path | None, folder: Path) -> None:
    kept, counts = chosen(card, _staged(card, cache), _never_shown(card, cache))
    np.save(folder / "images.npy", np.stack([fitted(pair.image, card.pairs.size) for pair in kept]))
    content = {"keys": [pair.key for pair in kept], "texts": [pair.texts for pair in kept], "counts": counts}
    (folder / "pairs.json").write_text(json.dumps(content), encoding="utf-8")


def _read(folder: Path) -> PairTable:
    try:
        content = json.loads((folder / "pairs.json").read_text(encoding="utf-8"))
        images = np.load(folder / "images.npy", mmap_mode="r")
        texts = tuple(map(tuple, content["texts"]))
        return PairTable(images, texts, tuple(content["keys"]), content["counts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} is damaged ({error}): delete it to read the pairs anew") from error
