"""The Lightning data module of pictures with captions: what generative models are trained and measured on."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from visionpeft.backbones.spec import InputSpec
from visionpeft.data.base import CardData
from visionpeft.data.cards import AugmentRule
from visionpeft.data.loaders import Batch, ImageBatches, Schedule, TrainLoader, in_order
from visionpeft.data.pictures.cards import PicturesCard
from visionpeft.data.pictures.open import open_pictures, pictures_card
from visionpeft.data.pictures.table import PictureTable
from visionpeft.data.splits import Split, hashed_order
from visionpeft.errors import DataError, OptionError, did_you_mean

AUGMENTATIONS = ("none", "flip")
TRAIN_ON = ("train", "all")
TELL = ("caption", "class")
TEST_SEED = 0  # the test pictures never depend on a run's seed
_FLIP = AugmentRule(rotate=0, scale=0, shift=0, light=0, flip=True)


class PictureData(CardData[PictureTable]):
    """Batches ``(images (B, 3, S, S) float32, positions in the table (B,) int64)`` of a card of pictures.

    Args:
        card: a card, its name in ``datasets/``, the path of a YAML file, or a folder of pictures.
        seed: chooses the pictures to train and tune on, the order, and the flips.
        input: what the network expects; default ``image_size``, values in -1 … 1.
        image_size: pixels of a side; default the size of ``input``, else that of the card.
        batch_size: pictures a step; the trainer's last incomplete batch of an epoch is dropped.
        train_pictures, val_pictures, test_pictures: how many of a part are taken; ``None`` takes all. They are drawn by
            concept: the same in every style, and those of a smaller number are among those of a larger.
        augment: ``"flip"`` mirrors half of the training pictures, ``"none"`` leaves them as they are.
        train_on: ``"train"``, or ``"all"`` for a source model that shall know every picture: it trains on all parts,
            and its validation and test then say how well it knows them, not how well it does on others.
        tell: what ``captions`` say of a picture, its ``"caption"`` or its ``"class"``.
        source: card of the style that a model knew before, with the same concepts; opened when :attr:`source` is asked.
        caption: one text for all pictures, or a template with ``{}`` where each picture's own goes.
        workers: processes that prepare batches; 0 prepares them in the training process.
        cache: folder for fetched files; default the user's cache folder.

    For an empty ``val`` or ``test`` part the training pictures stand in: losses then say how well these are known.

    Raises:
        OptionError: a number is out of range, ``augment`` is unknown, or ``caption`` cannot be filled.
        DataError: a part has fewer pictures than asked for, ``caption`` is a template but there are no captions; see
            also :func:`visionpeft.data.pictures.open.open_pictures`.
    """

    def __init__(
        self,
        card: PicturesCard | str | Path,
        *,
        seed: int = 0,
        input: InputSpec | None = None,
        image_size: int | None = None,
        batch_size: int = 16,
        train_pictures: int | None = None,
        val_pictures: int | None = None,
        test_pictures: int | None = None,
        augment: str = "none",
        train_on: str = "train",
        tell: str = "caption",
        source: PicturesCard | str | Path | None = None,
        caption: str | None = None,
        workers: int = 0,
        cache: Path | None = None,
    ) -> None:
        super().__init__()
        self._most = {"train": train_pictures, "val": val_pictures, "test": test_pictures}
        counts = {f"{part}_pictures": most for part, most in self._most.items()}
        _check(seed=seed, workers=workers, batch_size=batch_size, image_size=image_size, **counts)
        if augment not in AUGMENTATIONS:
            raise OptionError(f"unknown augmentation {augment!r}.{did_you_mean(augment, AUGMENTATIONS)}")
        for name, value, known in (("train_on", train_on, TRAIN_ON), ("tell", tell, TELL)):
            if value not in known:
                raise OptionError(f"{name}: {value!r} is unknown.{did_you_mean(value, known)}")
        self.card = pictures_card(card)
        self.input = input or InputSpec(size=image_size or self.card.pictures.size)
        self.image_size = image_size or self.input.size
        self.seed, self.batch_size, self.workers, self.cache = seed, batch_size, workers, cache
        self._rule = _FLIP if augment == "flip" else None
        self._caption = _template(caption)
        self.source_card = None if source is None else pictures_card(source)
        self._all, self.tells_classes = train_on == "all", tell == "class"

    def choose(self) -> tuple[PictureTable, Split]:
        table = open_pictures(self.card, self.cache)
        silent = not self.tells_classes and not any(map(any, table.texts))
        if silent and "{}" in self._caption and self._caption != "{}":
            raise DataError(
                f"data set {self.card.name!r} has no captions to fill the template {self._caption!r} with: give one "
                "text for all pictures"
            )
        train, val, test = (tuple(self._draw(table, part).tolist()) for part in self._most)
        # Of a subject's few pictures all are trained on, and looked at again.
        return table, Split(self.card.name, self.seed, None, train, val or train, test or train)

    def _draw(self, table: PictureTable, part: str) -> np.ndarray:
        everything = np.arange(len(table))
        pool, most = everything if self._all and part == "train" else table.indices(part), self._most[part]
        if part == "train" and not len(pool):
            raise DataError(f"data set {self.card.name!r} has no picture to train on")
        if most is None:
            return pool
        if most > len(pool):
            raise DataError(
                f"data set {self.card.name!r} has {len(pool)} picture(s) in the {part} part, fewer than the {most} of "
                f"{part}_pictures"
            )
        seed = TEST_SEED if part == "test" else self.seed
        return np.sort(pool[hashed_order([table.concepts[index] for index in pool], seed)[:most]])

    @cached_property
    def source(self) -> PictureTable | None:
        """The same concepts in the source's style, if the run names it."""
        return None if self.source_card is None else open_pictures(self.source_card, self.cache)

    @property
    def captions(self) -> tuple[str, ...]:
        """What each picture of the table is called: its first caption, or its class, in the template."""
        table = self.table
        if self.tells_classes:
            own = [table.classes[label] for label in table.labels]
        else:
            own = [texts[0] for texts in table.texts]
        return tuple(" ".join(self._caption.replace("{}", text).split()) for text in own)

    def train_dataloader(self) -> TrainLoader:
        """Shuffled; has ``state_dict`` and resumes in the middle of an epoch."""
        schedule = Schedule(np.array(self.split.train), self.batch_size, self.seed)
        return TrainLoader(self._batches(self._rule), schedule, self.workers)

    def ordered(self, part: str) -> DataLoader[Batch]:
        """The pictures of a part (``"train"``, ``"val"``, ``"test"``) once each, in the table's order, not mirrored."""
        return in_order(self._batches(None), np.array(getattr(self.split, part)), self.batch_size, self.workers)

    def _batches(self, rule: AugmentRule | None) -> ImageBatches:
        return ImageBatches(self.table.as_images(), self.image_size, self.input, self.seed, rule)


def _template(caption: str | None) -> str:
    text = "{}" if caption is None else caption
    if text.count("{}") > 1 or set("{}") & set(text.replace("{}", "", 1)):
        raise OptionError(f"caption: {text!r} may have {{}} once, where a picture's own caption goes")
    return text


def _check(*, seed: int, workers: int, **counts: int | None) -> None:
    given = [("seed", seed, 0), ("workers", workers, 0), *((name, count, 1) for name, count in counts.items())]
    for name, value, least in given:
        if value is not None and value < least:
            raise OptionError(f"{name} is {value}; it must be at least {least}")
    size = counts["image_size"]
    if size is not None and size < 8:
        raise OptionError(f"image_size is {size}; it must be at least 8 pixels")
