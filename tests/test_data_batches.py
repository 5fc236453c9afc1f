"""Batches: what a backbone gets, and that order and augmentation are functions of seed, epoch and index alone."""

from __future__ import annotations

from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from torch import nn

from visionpeft.backbones.spec import InputSpec
from visionpeft.data.augment import augment, normalise, to_batch
from visionpeft.data.cards import AugmentRule
from visionpeft.data.classification import ClassificationData
from visionpeft.data.loaders import Schedule
from visionpeft.data.randomness import shuffled
from visionpeft.errors import DataError, OptionError, StateError

SPEC = InputSpec(size=16, channels=3, mean=(0.5, 0.4, 0.3), std=(0.5, 0.25, 0.2))
STILL = AugmentRule(rotate=0, scale=0, shift=0, flip=False, light=0)


def digits(**changes: object) -> ClassificationData:
    options = {"shots": 7, "val_shots": 2, "test_shots": 5, "batch_size": 16, "input": SPEC, **changes}
    data = ClassificationData("digits", **options)  # pyright: ignore[reportArgumentType]
    data.setup()
    return data


def pictures(count: int = 4, shape: tuple[int, ...] = (20, 30, 3), seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(count)]


def test_a_batch_is_what_the_backbone_expects() -> None:
    images, labels = next(iter(digits().train_dataloader()))
    assert images.shape == (16, 3, 16, 16)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    low = torch.tensor([(0 - m) / s for m, s in zip(SPEC.mean, SPEC.std, strict=True)])
    high = torch.tensor([(1 - m) / s for m, s in zip(SPEC.mean, SPEC.std, strict=True)])
    assert torch.allclose(images.amin(dim=(0, 2, 3)), low, atol=0.1)
    assert torch.allclose(images.amax(dim=(0, 2, 3)), high, atol=0.1)


def test_the_centre_square_is_kept() -> None:
    """A picture twice as wide as high, white only at its outer quarters, becomes black."""
    picture = np.zeros((16, 32, 1), np.uint8)
    picture[:, :8] = picture[:, 24:] = 255
    assert to_batch([picture], 16, SPEC).max() == 0


def test_grey_and_coloured_pictures_mix() -> None:
    grey = np.full((20, 20, 1), 51, np.uint8)
    batch = normalise(to_batch([grey, *pictures(1)], 16, SPEC), SPEC)
    assert batch.shape == (2, 3, 16, 16)
    assert torch.allclose(batch[0, :, 3, 3], torch.tensor([(0.2 - 0.5) / 0.5, (0.2 - 0.4) / 0.25, (0.2 - 0.3) / 0.2]))


def test_colour_becomes_grey_for_a_grey_backbone() -> None:
    spec = InputSpec(size=8, channels=1, mean=(0.0,), std=(1.0,))
    green = np.zeros((8, 8, 3), np.uint8)
    green[..., 1] = 255
    batch = normalise(to_batch([green], 8, spec), spec)
    assert batch.shape == (1, 1, 8, 8)
    assert batch.mean() == pytest.approx(0.587)


def test_no_change_asked_no_change_made() -> None:
    batch = to_batch(pictures(), 16, SPEC)
    assert torch.allclose(augment(batch, STILL, 0, [(0, i) for i in range(4)]), batch, atol=1e-5)


def test_a_mirror_mirrors_about_half_of_the_images() -> None:
    batch = to_batch(pictures(1), 16, SPEC).expand(64, -1, -1, -1)
    rule = STILL.model_copy(update={"flip": True})
    out = augment(batch, rule, 0, [(0, i) for i in range(64)])
    mirrored = [torch.allclose(image, batch[0].flip(-1), atol=1e-5) for image in out]
    kept = [torch.allclose(image, batch[0], atol=1e-5) for image in out]
    assert sum(mirrored) + sum(kept) == 64
    assert 16 < sum(mirrored) < 48


@pytest.mark.parametrize("rule", ["shift", "rotate", "scale", "light"])
def test_every_part_of_the_rule_does_something(rule: str) -> None:
    batch = to_batch(pictures(), 16, SPEC)
    changed = augment(batch, STILL.model_copy(update={rule: 0.2}), 0, [(0, i) for i in range(4)])
    assert (changed - batch).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_augmentation_depends_on_seed_epoch_and_index_alone() -> None:
    """Not on the company in the batch, nor on the global generator."""
    batch, rule = to_batch(pictures(), 16, SPEC), AugmentRule()
    whole = augment(batch, rule, 5, [(2, 10 + i) for i in range(4)])
    torch.rand(3)
    alone = augment(batch[2:3], rule, 5, [(2, 12)])
    assert torch.equal(alone[0], whole[2])
    for seed, epoch, index in ((6, 2, 12), (5, 3, 12), (5, 2, 13)):
        assert not torch.allclose(augment(batch[2:3], rule, seed, [(epoch, index)])[0], whole[2])


def test_epochs_differ_and_repeat_nothing() -> None:
    orders = [shuffled(50, 0, epoch).tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_workers_change_nothing() -> None:
    alone, helped = digits().train_dataloader(), digits(workers=2).train_dataloader()
    for _ in range(2):
        for (x, y), (u, v) in zip(alone, helped, strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)


def test_a_loader_resumes_at_the_next_batch() -> None:
    first = digits().train_dataloader()
    seen = [labels for _ in range(3) for _, labels in first]
    second, resumed = digits().train_dataloader(), digits().train_dataloader()
    steps = iter(second)
    for _ in range(len(second)):
        next(steps)
    steps = iter(second)
    next(steps)
    resumed.load_state_dict(second.state_dict())
    assert second.state_dict() == {"epoch": 1, "batch": 1}
    rest = [labels for _ in range(2) for _, labels in resumed]
    assert torch.equal(torch.cat(rest), torch.cat(seen[len(second) + 1 :]))


def test_processes_share_the_images_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ranks see every image once together, in batches of equal number."""
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr(Schedule, "_ranks", staticmethod(lambda rank=rank: (rank, 2)))
        schedule = Schedule(np.arange(48), batch_size=8, seed=0)
        batches = list(schedule)
        assert len(batches) == len(schedule) == 3
        drawn += [index for batch in batches for _, index in batch]
    assert sorted(drawn) == list(range(48))


def test_fewer_images_than_a_batch_make_one_batch() -> None:
    loader = digits(shots=1, batch_size=64).train_dataloader()
    assert [len(labels) for _, labels in loader] == [10]


def test_splits_are_apart_and_the_test_split_is_fixed() -> None:
    first, second = digits(seed=0).split, digits(seed=1).split
    assert set(first.train).isdisjoint(first.val + first.test)
    assert set(first.val).isdisjoint(first.test)
    assert first.test == second.test
    assert first.train != second.train
    assert [len(part) for part in (first.train, first.val, first.test)] == [70, 20, 50]


def test_ordered_parts_are_plain_and_complete() -> None:
    data = digits()
    labels = torch.cat([labels for _, labels in data.ordered("train")])
    assert labels.tolist() == data.table.labels[list(data.split.train)].tolist()
    plain = next(iter(data.ordered("train")))[0]
    assert torch.equal(plain, next(iter(digits(seed=0).ordered("train")))[0])
    assert not torch.equal(plain, next(iter(data.ordered("train", augmented=True)))[0])
    assert torch.equal(plain, next(iter(digits(augment="none").ordered("train", augmented=True)))[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": "standrd"}, r"unknown augmentation 'standrd'\. Did you mean 'standard'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"image_size": 4}, "image_size is 4"),
        ({"seed": -1}, "seed is -1"),
        ({"workers": -1}, "workers is -1"),
        ({"shots": 0}, "shots is 0"),
    ],
)
def test_wrong_options(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        digits(**options)


def test_more_shots_than_images() -> None:
    with pytest.raises(DataError, match=r"class '\d' has \d+ image\(s\) in the train split, fewer than the 999 shots"):
        digits(shots=999)


def test_data_must_be_set_up_first() -> None:
    with pytest.raises(StateError, match="call setup"):
        ClassificationData("digits").train_dataloader()


class Probe(lightning.LightningModule):
    """A linear classifier that remembers every batch it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3 * 16 * 16, 10)
        nn.init.zeros_(self.net.weight)
        nn.init.zeros_(self.net.bias)
        self.seen: list[torch.Tensor] = []

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        images, labels = batch
        self.seen.append(images)
        return nn.functional.cross_entropy(self.net(images.flatten(1)), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Kill(lightning.Callback):
    """Save after a step, then stop as a killed process stops: in the middle of things."""

    def __init__(self, step: int, path: Path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise ConnectionAbortedError


def train(data: ClassificationData, steps: int, *callbacks: lightning.Callback, resume: Path | None = None) -> Probe:
    probe = Probe()
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(callbacks), use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(probe, datamodule=data, ckpt_path=resume, weights_only=False)
    return probe


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("killed_at", [1, 3, 4, 6, 8])
def test_a_killed_training_resumes_bit_for_bit(tmp_path: Path, killed_at: int) -> None:
    """Four batches an epoch: killed inside the first and the second epoch, and exactly at an epoch's end."""
    straight = train(digits(), 10)
    path = tmp_path / "killed.ckpt"
    with pytest.raises(ConnectionAbortedError):
        train(digits(), 10, Kill(killed_at, path))
    resumed = train(digits(), 10, resume=path)
    assert len(straight.seen) == 10
    assert len(resumed.seen) == 10 - killed_at
    for mine, theirs in zip(resumed.seen, straight.seen[killed_at:], strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(resumed.net.weight, straight.net.weight)
