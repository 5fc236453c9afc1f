"""The Lightning data module of an alignment: pairs to train on, held-out classes to test on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from visionpeft.backbones.spec import InputSpec
from visionpeft.data.base import CardData, check_augment
from visionpeft.data.captions.cards import CaptionsCard
from visionpeft.data.captions.held_out import HeldOutData
from visionpeft.data.captions.open import PairTable, captions_card, open_pairs
from visionpeft.data.cards import AugmentRule, Card
from visionpeft.data.encoded import Encode, EncodedBatches
from visionpeft.data.loaders import ImageBatches, Schedule, TrainLoader
from visionpeft.data.prompts import Templates
from visionpeft.data.splits import Split
from visionpeft.data.tables import ImageTable
from visionpeft.errors import StateError


@dataclass(eq=False)
class Kept:
    """What frozen towers said, kept from one training to the next.

    Attributes:
        images: set of images → what encoded them → position → ``(…)``.
        texts: what read the captions → their features.
        tokens: backbone → tokens of all captions.
    """

    images: dict[str, dict[str, dict[int, Tensor]]] = field(default_factory=dict)
    texts: dict[str, Tensor] = field(default_factory=dict)
    tokens: dict[str, Tensor] = field(default_factory=dict)


class PairData(CardData[ImageTable]):
    """Batches ``(images (B, 3, S, S), positions (B,))`` of pairs; :attr:`texts` holds the captions by position.

    Args:
        card: a captions card, its name in ``datasets/``, or the path of a YAML file.
        templates: prompts of the held-out classes; default those of their cards.
        centroid_shots: images a held-out test class that the nearest-centroid control learns from.
        seed: chooses the order, the augmentation and the control's shots.
        batch_size, image_size, input, augment, workers, cache: see
            :class:`visionpeft.data.classification.ClassificationData`.
        kept: where encoded images and texts are kept; give the same to the data of every seed.

    Raises:
        OptionError: ``augment`` is unknown.
        DataError: see :func:`visionpeft.data.captions.open.open_pairs`.
    """

    def __init__(
        self,
        card: CaptionsCard | str | Path,
        *,
        templates: Templates = None,
        centroid_shots: int = 5,
        seed: int = 0,
        batch_size: int = 512,
        image_size: int | None = None,
        input: InputSpec | None = None,
        augment: str = "none",
        workers: int = 0,
        cache: Path | None = None,
        kept: Kept | None = None,
    ) -> None:
        super().__init__()
        check_augment(augment)
        self.captions = captions_card(card)
        self.input = input or InputSpec(size=image_size or 224)
        self.image_size = image_size or self.input.size
        self.seed, self.batch_size, self.workers, self.cache = seed, batch_size, workers, cache
        self._rule = AugmentRule(flip=True) if augment == "standard" else None
        self.kept = kept or Kept()
        self._images_by: dict[int, Tensor] = {}
        self._encode: Encode | None = None
        self._pairs: PairTable | None = None
        shared = {"templates": templates, "seed": seed, "batch_size": batch_size, "image_size": image_size}
        shared |= {"input": input, "workers": workers, "cache": cache}
        self.validation = HeldOutData(self.captions.validation, kept=self._kept_of("validation"), **shared)
        self.tests = {
            name: HeldOutData(held, shots=centroid_shots, kept=self._kept_of(name), **shared)
            for name, held in self.captions.test.items()
        }

    @property
    def main(self) -> HeldOutData:
        """The first of the test sets."""
        return next(iter(self.tests.values()))

    @property
    def card(self) -> Card:
        """The main test set's card: which classes a finished run tells apart when it is asked to predict."""
        return self.main.card

    @property
    def classes(self) -> tuple[str, ...]:
        return self.main.classes

    @property
    def texts(self) -> tuple[tuple[str, ...], ...]:
        """The captions of each pair."""
        if self._pairs is None:
            raise StateError("the data is not open yet: call setup() first")
        return self._pairs.texts

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        for held in (self.validation, *self.tests.values()):
            held.setup(stage)

    def choose(self) -> tuple[ImageTable, Split]:
        self._pairs = open_pairs(self.captions, self.cache)
        return self._pairs.as_images(), Split(
            self.captions.name, self.seed, None, tuple(range(len(self._pairs))), (), ()
        )

    def encode_by(self, name: str, encode: Encode | None) -> None:
        """As :meth:`visionpeft.data.fewshot.PromptedData.encode_by`, for the pairs and all held-out images."""
        self._encode, self._images_by = encode, self._kept_of("pairs").setdefault(name, {})
        for held in (self.validation, *self.tests.values()):
            held.encode_by(name, encode)

    def train_dataloader(self) -> TrainLoader:
        """Shuffled; has ``state_dict`` and resumes in the middle of an epoch."""
        schedule = Schedule(np.arange(len(self.table)), self.batch_size, self.seed)
        batches: Any = ImageBatches(self.table, self.image_size, self.input, self.seed, self._rule)
        if self._encode is not None and self._rule is None:
            batches = EncodedBatches(batches, self._encode, self._images_by)
        return TrainLoader(batches, schedule, self.workers)

    def ordered(self, part: str) -> DataLoader[Any]:
        """The images of ``"val"`` (the validation classes) or ``"test"`` (the main test set's) in a fixed order."""
        return (self.validation if part == "val" else self.main).ordered("test")

    def images(self, part: str) -> DataLoader[Any]:
        """As ``ordered``, but always the images themselves."""
        return (self.validation if part == "val" else self.main).images("test")

    def _kept_of(self, name: str) -> dict[str, dict[int, Tensor]]:
        return self.kept.images.setdefault(name, {})
