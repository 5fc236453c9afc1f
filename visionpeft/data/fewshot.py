"""Few-shot data of a vision-language model: images with prompts, the other half of the classes, other data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from visionpeft.data.cards import Card
from visionpeft.data.classification import ClassificationData
from visionpeft.data.encoded import Encode, EncodedBatches
from visionpeft.data.loaders import in_order
from visionpeft.data.prompts import Prompts, Templates, prompts_of
from visionpeft.errors import OptionError, StateError

NEW = "new classes"
"""Name of the test set of the classes that training did not see."""


class PromptedData(ClassificationData):
    """:class:`ClassificationData` whose classes are put into words, and whose images may come encoded.

    Args:
        card: the data set, or its name.
        templates: texts with ``{}``, or a prompt file; default those of the card.
        options: see :class:`ClassificationData`.

    Raises:
        DataError: see :func:`visionpeft.data.prompts.prompts_of` and :class:`ClassificationData`.
    """

    def __init__(self, card: Card | str | Path, *, templates: Templates = None, **options: Any) -> None:
        super().__init__(card, **options)
        self._templates = templates
        self._prompts: Prompts | None = None
        self._encode: Encode | None = None
        self._kept: dict[int, Tensor] = {}
        self._kept_by: dict[str, dict[int, Tensor]] = {}

    @property
    def prompts(self) -> Prompts:
        """The texts of every class (after ``setup``)."""
        if self._prompts is None:
            raise StateError("the data is not open yet: call setup() first")
        return self._prompts

    def setup(self, stage: str | None = None) -> None:
        if self._prompts is None:
            super().setup(stage)
            self._prompts = prompts_of(self.card, self.classes, self._templates, known=self.all_classes)

    def encode_by(self, name: str, encode: Encode | None) -> None:
        """From now on give images without augmentation as :class:`visionpeft.data.encoded.Encoded`.

        Args:
            name: says what ``encode`` computes; what was kept under it is used again by later trainings.
            encode: see :data:`visionpeft.data.encoded.Encode`; None gives images again.
        """
        self._encode, self._kept = encode, self._kept_by.setdefault(name, {})

    def images(self, part: str) -> Any:
        """As ``ordered``, but always the images themselves."""
        return in_order(super()._batches(False), np.array(getattr(self.split, part)), self.batch_size, self.workers)

    def _batches(self, augmented: bool) -> Any:
        batches = super()._batches(augmented)
        if self._encode is None or batches.rule is not None:
            return batches
        return EncodedBatches(batches, self._encode, self._kept)


@dataclass(frozen=True)
class Elsewhere:
    """A test set beside the main one, with its own classes and prompts."""

    name: str
    data: PromptedData


class FewShotData(PromptedData):
    """The data of a few-shot run: :class:`PromptedData`, and the sets on which it is tested beside its own classes.

    Args:
        classes: ``"all"``; with ``"base"`` the first half is trained, and the other half tested as well.
        forgetting: cards tested zero-shot by their own prompts, to see what adapting cost.
        card, templates, options: see :class:`PromptedData`.

    Raises:
        OptionError: ``forgetting`` names the card that is trained on, or one card twice.
        DataError: see :class:`PromptedData`.
    """

    def __init__(
        self, card: Card | str | Path, *, classes: str = "all", forgetting: Sequence[str] = (), **options: Any
    ) -> None:
        super().__init__(card, classes=classes, **options)
        untrained = {**options, "shots": None, "val_shots": None, "augment": "none"}
        new = [Elsewhere(NEW, PromptedData(self.card, **untrained | {"classes": "new"}))] if classes == "base" else []
        others = [PromptedData(name, **untrained | {"templates": None}) for name in forgetting]
        names = [self.card.name, *(other.card.name for other in others)]
        if names[0] in names[1:]:
            raise OptionError(f"data.forgetting: {names[0]!r} is the card that is trained on; name others")
        if twice := [name for place, name in enumerate(names) if name in names[:place]]:
            raise OptionError(f"data.forgetting: {twice[0]!r} is named twice")
        self.elsewhere = (*new, *(Elsewhere(other.card.name, other) for other in others))

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        for other in self.elsewhere:
            other.data.setup(stage)

    def encode_by(self, name: str, encode: Encode | None) -> None:
        super().encode_by(name, encode)
        for other in self.elsewhere:
            other.data.encode_by(name, encode)

    def tests(self, part: str) -> list[Any]:
        """The images of a part in a fixed order, and behind those of the test part the other test sets."""
        others = [other.data.ordered("test") for other in self.elsewhere] if part == "test" else []
        return [self.ordered(part), *others]
