"""Loaders whose order is a function of ``(seed, epoch, batch)``, so that a killed run resumes at the right image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from visionpeft.backbones.spec import InputSpec
from visionpeft.data.augment import augment, normalise, to_batch
from visionpeft.data.cards import AugmentRule
from visionpeft.data.randomness import shuffled
from visionpeft.data.tables import ImageTable

Draw = tuple[int, int]  # (epoch, position in the table)
Batch = tuple[torch.Tensor, torch.Tensor]  # images (B, C, S, S) float32, labels (B,) int64


class ImageBatches(Dataset[Batch]):
    """Whole batches of a table by lists of :data:`Draw`; with a ``rule``, augmented."""

    def __init__(self, table: ImageTable, size: int, spec: InputSpec, seed: int, rule: AugmentRule | None = None):
        self.table, self.size, self.spec, self.seed, self.rule = table, size, spec, seed, rule

    def __getitems__(self, draws: Sequence[Draw]) -> Batch:
        images = to_batch([self.table.picture(index) for _, index in draws], self.size, self.spec)
        if self.rule is not None:
            images = augment(images, self.rule, self.seed, draws)
        labels = torch.from_numpy(self.table.labels[[index for _, index in draws]])
        return normalise(images, self.spec), labels

    def __getitem__(self, draw: Draw) -> Batch:
        images, labels = self.__getitems__([draw])
        return images[0], labels[0]


class Schedule:
    """The training batches of an epoch, from the batch after the last one delivered; shared out among processes."""

    def __init__(self, indices: np.ndarray, batch_size: int, seed: int):
        self.indices, self.seed = indices, seed
        self.batch_size = batch_size
        self.epoch = self.batch = 0

    def __len__(self) -> int:
        """Batches an epoch and process; the last incomplete batch is dropped unless it is the only one."""
        return max(1, len(self.indices) // self._ranks()[1] // self.batch_size)

    def __iter__(self) -> Iterator[list[Draw]]:
        rank, world = self._ranks()
        order = self.indices[shuffled(len(self.indices), self.seed, self.epoch)][rank::world]
        for batch in range(self.batch, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, int(index)) for index in chosen]

    def delivered(self) -> None:
        """Count one batch that reached the trainer (workers may have prepared more)."""
        self.batch += 1
        if self.batch == len(self):
            self.epoch, self.batch = self.epoch + 1, 0

    @staticmethod
    def _ranks() -> tuple[int, int]:
        ready = dist.is_available() and dist.is_initialized()
        return (dist.get_rank(), dist.get_world_size()) if ready else (0, 1)


class TrainLoader:
    """Endless epochs of training batches with a state; Lightning saves and restores it with the checkpoint.

    It shares the images out among distributed processes itself: give the trainer ``use_distributed_sampler=False``.
    """

    def __init__(self, batches: Dataset[Batch], schedule: Schedule, workers: int = 0):
        self.schedule = schedule
        self._loader = DataLoader(
            batches,
            batch_sampler=schedule,  # pyright: ignore[reportArgumentType] (an iterable of batches is enough)
            collate_fn=_as_is,
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def __len__(self) -> int:
        return len(self.schedule)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._loader:
            self.schedule.delivered()
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.schedule.epoch, "batch": self.schedule.batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.schedule.epoch, self.schedule.batch = state["epoch"], state["batch"]


def in_order(batches: ImageBatches, indices: np.ndarray, batch_size: int, workers: int = 0) -> DataLoader[Batch]:
    """Every image of ``indices`` once, in ascending order; augmented as in epoch 0 if ``batches`` has a rule."""
    draws = [(0, int(index)) for index in indices]
    parts = [draws[start : start + batch_size] for start in range(0, len(draws), batch_size)]
    return DataLoader(batches, batch_sampler=parts, collate_fn=_as_is, num_workers=workers)


def _as_is(batch: Any) -> Any:
    return batch
