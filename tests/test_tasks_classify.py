"""The classification task on a small network: what trains, what stays, what a checkpoint holds."""

from __future__ import annotations

import lightning
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from visionpeft.errors import OptionError, StateError
from visionpeft.surgery.trainable import train_only
from visionpeft.tasks.classify import ClassifyOptions, ClassifyTask
from visionpeft.tasks.optimize import OptimizerOptions

CLASSES = 6


class Network(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(8, CLASSES)
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(self.norm(self.stem(images)).relu().mean((2, 3))))


def batches(images: int = 48, size: int = 12) -> DataLoader:
    draw = torch.Generator().manual_seed(1)
    labels = torch.arange(images) % CLASSES
    pictures = torch.randn(images, 3, 8, 8, generator=draw) + labels.view(-1, 1, 1, 1) - 2
    return DataLoader(TensorDataset(pictures, labels), batch_size=size)


def head_task(**options) -> ClassifyTask:
    prepare = options.pop("prepare", lambda model: train_only(model, ["head"]))
    options.setdefault("optimizer", OptimizerOptions(lr=0.05))
    return ClassifyTask(Network(), CLASSES, prepare=prepare, head="head", **options)


def trainer(tmp_path, steps: int, **options) -> lightning.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    options.setdefault("enable_checkpointing", False)
    return lightning.Trainer(max_steps=steps, default_root_dir=tmp_path, num_sanity_val_steps=0, **quiet, **options)


def state(task: ClassifyTask) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.model.state_dict().items()}


def test_head_only_learns_and_leaves_the_base_bit_for_bit(tmp_path):
    task = head_task()
    before, run = state(task), trainer(tmp_path, 60)
    first = run.validate(task, batches(), verbose=False)[0]
    run.fit(task, batches())
    last = run.validate(task, batches(), verbose=False)[0]
    assert last["val/loss"] < first["val/loss"] - 0.3 and last["val/top1"] > first["val/top1"]
    after = state(task)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}


def test_batch_norm_moves_only_when_it_is_trained(tmp_path):
    task = head_task(prepare=lambda model: train_only(model, ["head", "norm"]))
    before = state(task)
    trainer(tmp_path, 4).fit(task, batches())
    after = state(task)
    assert not torch.equal(before["norm.running_mean"], after["norm.running_mean"])
    assert torch.equal(before["stem.weight"], after["stem.weight"])


def test_a_trained_dropout_still_drops_beside_a_held_batch_norm():
    task = head_task()
    task.configure_model()
    task.train()
    assert task.model.drop.training and not task.model.norm.training
    task.eval()
    assert not task.model.drop.training


def test_a_checkpoint_holds_what_moves_and_nothing_else(tmp_path):
    task = head_task(prepare=lambda model: train_only(model, ["head", "norm"]))
    run = trainer(tmp_path, 2)
    run.fit(task, batches())
    run.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    running = {"running_mean", "running_var", "num_batches_tracked"}
    assert set(saved) == {f"model.head.{n}" for n in ("weight", "bias")} | {
        f"model.norm.{n}" for n in {"weight", "bias"} | running
    }


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_resume_is_bit_equal_with_dropout_and_mixup(tmp_path, mixup):
    options = {"options": ClassifyOptions(label_smoothing=0.1, mixup=mixup), "seed": 5}
    options["optimizer"] = OptimizerOptions(lr=0.05, warmup_steps=2)
    whole = head_task(**options)
    trainer(tmp_path, 8).fit(whole, batches())

    class Halt(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 4:  # the end of the first epoch: this loader has no state of its own
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    trainer(tmp_path, 8, callbacks=[Halt()]).fit(head_task(**options), batches())
    torch.manual_seed(99)
    resumed = head_task(**options)
    trainer(tmp_path, 8).fit(resumed, batches(), ckpt_path=tmp_path / "half.ckpt")
    expected, found = state(whole), state(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    run = trainer(tmp_path, 1)
    run.fit(head_task(), batches())
    run.save_checkpoint(tmp_path / "head.ckpt")
    other = head_task(prepare=lambda model: train_only(model, ["norm"]))
    with pytest.raises(StateError, match=r"model\.head"):
        trainer(tmp_path, 2).fit(other, batches(), ckpt_path=tmp_path / "head.ckpt")


def test_preparing_happens_once(tmp_path):
    calls = []

    def prepare(model: nn.Module) -> None:
        calls.append(model)
        train_only(model, ["head"])

    task = head_task(prepare=prepare)
    run = trainer(tmp_path, 1)
    run.fit(task, batches())
    run.validate(task, batches(), verbose=False)
    assert calls == [task.model]


def test_nan_in_the_weights_is_named(tmp_path):
    task = head_task()
    with torch.no_grad():
        task.model.stem.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(StateError, match=r"stem\.weight.*1 NaN"):
        trainer(tmp_path, 1).fit(task, batches())


def test_a_loss_that_is_not_finite_names_step_and_rate(tmp_path):
    task = head_task(optimizer=OptimizerOptions(lr=1e20, schedule="constant"))
    with pytest.raises(StateError, match=r"at step [1-9].*1e\+20"):
        trainer(tmp_path, 20).fit(task, batches())


def test_nothing_trainable_is_an_error(tmp_path):
    task = head_task(prepare=lambda model: model.requires_grad_(False))
    with pytest.raises(StateError, match="nothing to train"):
        trainer(tmp_path, 1).fit(task, batches())


def test_test_predictions_keep_the_order_of_the_split(tmp_path):
    task = head_task()
    data = batches(images=30, size=7)
    results = trainer(tmp_path, 1).test(task, data, verbose=False)[0]
    task.eval()
    with torch.inference_mode():
        logits = torch.cat([task(images) for images, _ in data])
    assert torch.equal(task.predictions.logits, logits)
    assert torch.equal(task.predictions.labels, torch.arange(30) % CLASSES)
    assert results["test/top1"] == pytest.approx(task.predictions.correct().float().mean().item())


def test_mixup_and_smoothing_change_the_loss_in_training_only(tmp_path):
    plain, mixed = head_task(), head_task(options=ClassifyOptions(label_smoothing=0.2, mixup=0.5))
    losses = []
    for task in (plain, mixed):
        run = trainer(tmp_path, 1)
        before = run.validate(task, batches(), verbose=False)[0]["val/loss"]
        run.fit(task, batches())
        losses.append((before, run.callback_metrics["train/loss"].item()))
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] != losses[1][1]


def test_channels_last_gives_the_same_logits():
    plain, last = head_task(), head_task(options=ClassifyOptions(channels_last=True))
    images = next(iter(batches()))[0]
    for task in (plain, last):
        task.configure_model()
        task.eval()
    assert last.model.stem.weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain(images), last(images))


@pytest.mark.parametrize("options", [{"label_smoothing": 1.0}, {"label_smoothing": -0.1}, {"mixup": -1.0}])
def test_senseless_options_are_refused(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        ClassifyOptions(**options)


def test_one_class_is_refused():
    with pytest.raises(OptionError, match="two classes"):
        ClassifyTask(Network(), 1)
