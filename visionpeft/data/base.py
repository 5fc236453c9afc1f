"""What the data modules of all tasks share: a table opened once, the parts chosen from it, and their loaders."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import lightning
from torch.utils.data import DataLoader

from visionpeft.data.splits import Split
from visionpeft.errors import OptionError, StateError, did_you_mean

Table = TypeVar("Table")
AUGMENTATIONS = ("standard", "none")


class CardData(lightning.LightningDataModule, Generic[Table]):
    """A data set by its card. A subclass says how to open it and which of it a run takes (``choose``)."""

    def __init__(self) -> None:
        super().__init__()
        self._table: Table | None = None
        self._split: Split | None = None

    def choose(self) -> tuple[Table, Split]:
        """Open the data set and choose the parts of this run."""
        raise NotImplementedError

    def ordered(self, part: str) -> DataLoader[Any]:
        """What is in a part, once each, in a fixed order."""
        raise NotImplementedError

    @property
    def table(self) -> Table:
        """All of the data set (after ``setup``)."""
        if self._table is None:
            raise StateError("the data is not open yet: call setup() first")
        return self._table

    @property
    def split(self) -> Split:
        """What this run trains, tunes and tests on, as positions in the table; save it with ``save_split``."""
        if self._split is None:
            raise StateError("the data is not open yet: call setup() first")
        return self._split

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return self.table.classes  # pyright: ignore[reportAttributeAccessIssue] (every table has them)

    def prepare_data(self) -> None:
        """Fetch what is missing (Lightning calls this in one process a machine)."""
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Open the data set and choose the parts; the same for every ``stage``, and done once."""
        if self._table is None:
            self._table, self._split = self.choose()

    def val_dataloader(self) -> DataLoader[Any]:
        return self.ordered("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self.ordered("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        return self.ordered("test")


def check_augment(augment: str) -> None:
    """Raise OptionError unless ``augment`` is one of :data:`AUGMENTATIONS`."""
    if augment not in AUGMENTATIONS:
        raise OptionError(f"unknown augmentation {augment!r}.{did_you_mean(augment, AUGMENTATIONS)}")
