"""The segmentation task on a small MONAI U-Net: what trains, what is measured, what a checkpoint holds."""

from __future__ import annotations

import copy

import lightning
import pytest
import torch
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.unet import UNet
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import visionpeft as vp
from visionpeft.errors import OptionError, StateError, UnknownNameError
from visionpeft.metrics.segmentation import score_case
from visionpeft.surgery.trainable import train_only
from visionpeft.tasks.optimize import OptimizerOptions
from visionpeft.tasks.segment import SegmentOptions, SegmentTask

CLASSES = ("background", "square", "disc")
HEAD = "model.2.1"


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return UNet(2, 1, len(CLASSES), (8, 16, 16), (2, 2), num_res_units=1, norm="batch", dropout=0.1)


def pictures(count: int, size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """A bright square and a dark disc at random places, in noise."""
    draw = torch.Generator().manual_seed(seed)
    masks = torch.zeros(count, *size, dtype=torch.long)
    rows, columns = torch.meshgrid(*[torch.arange(extent) for extent in size], indexing="ij")
    for mask in masks:
        (r, c), (y, x) = (torch.stack([torch.randint(5, n - 5, (2,), generator=draw) for n in size], 1)).tolist()
        mask[(rows - r).abs().maximum((columns - c).abs()) <= 4] = 1
        mask[(rows - y) ** 2 + (columns - x) ** 2 <= 16] = 2
    levels = torch.tensor([0.0, 1.5, -1.5])
    return levels[masks][:, None] + 0.5 * torch.randn(count, 1, *size, generator=draw), masks


def crops(count: int = 16, size: int = 4) -> DataLoader:
    return DataLoader(TensorDataset(*pictures(count, (32, 32), 1)), batch_size=size)


def cases(count: int = 3) -> DataLoader:
    """Whole cases of unequal, odd sizes."""
    made = [pictures(1, (33 + 6 * index, 41), 50 + index) for index in range(count)]
    return DataLoader([(image, mask, index) for index, (image, mask) in enumerate(made)], batch_size=None)


def task(**options) -> SegmentTask:
    options.setdefault("optimizer", OptimizerOptions(lr=0.02))
    return SegmentTask(network(), CLASSES, head=HEAD, **options)


def trainer(tmp_path, steps: int, **options) -> lightning.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    options.setdefault("enable_checkpointing", False)
    return lightning.Trainer(max_steps=steps, default_root_dir=tmp_path, num_sanity_val_steps=0, **quiet, **options)


def state(made: SegmentTask) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def adapted(model: nn.Module) -> None:
    vp.adapt(model, "lora_c", targets=["conv"], rank=2, train_also=[HEAD], generator=torch.Generator().manual_seed(0))


def test_it_learns_and_the_figures_say_so(tmp_path):
    made, run = task(), trainer(tmp_path, 60)
    first = run.validate(made, cases(), verbose=False)[0]
    run.fit(made, crops())
    last = run.validate(made, cases(), verbose=False)[0]
    assert first["val/dice"] < 0.4 and last["val/dice"] > 0.8
    assert last["val/loss"] < first["val/loss"] / 2


def test_an_adapter_learns_on_a_base_that_stays_bit_for_bit(tmp_path):
    made = task(prepare=adapted)
    before, run = state(made), trainer(tmp_path, 24)
    first = run.validate(made, cases(), verbose=False)[0]["val/loss"]
    run.fit(made, crops())
    assert run.validate(made, cases(), verbose=False)[0]["val/loss"] < first - 0.2
    after = state(made)
    assert before.keys() < after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith(f"{HEAD}.") for name in moved), moved


def test_gradients_reach_the_trainable_weights_and_no_others():
    made = task(prepare=lambda model: train_only(model, [HEAD]))
    made.configure_model()
    made.train()
    images, masks = next(iter(crops()))
    made._loss(made(images), masks).backward()
    reached = {name for name, p in made.model.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {name for name, p in made.model.named_parameters() if p.requires_grad}
    assert reached and all(name.startswith(f"{HEAD}.") for name in reached)


def test_the_head_may_have_a_rate_of_its_own(tmp_path):
    made, run = task(optimizer=OptimizerOptions(lr=0.1, head_lr=0.5)), trainer(tmp_path, 1)
    run.fit(made, crops())
    rates = {id(p): group["initial_lr"] for group in run.optimizers[0].param_groups for p in group["params"]}
    found = {name: rates[id(p)] for name, p in made.model.named_parameters()}
    assert {name for name, rate in found.items() if rate == 0.5} == {n for n in found if n.startswith(f"{HEAD}.")}
    assert set(found.values()) == {0.1, 0.5}


@pytest.mark.parametrize("prepare", [None, adapted])
def test_resume_is_bit_equal_with_dropout(tmp_path, prepare):
    options = {"seed": 5, "optimizer": OptimizerOptions(lr=0.02, warmup_steps=2), "prepare": prepare}
    whole = task(**options)
    trainer(tmp_path, 8).fit(whole, crops())

    class Halt(lightning.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 4:  # the end of the first epoch: this loader has no state of its own
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    trainer(tmp_path, 8, callbacks=[Halt()]).fit(task(**options), crops())
    torch.manual_seed(99)
    resumed = task(**options)
    trainer(tmp_path, 8).fit(resumed, crops(), ckpt_path=tmp_path / "half.ckpt")
    expected, found = state(whole), state(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_checkpoint_holds_what_moves_and_nothing_else(tmp_path):
    options = SegmentOptions(class_weights=(1.0, 2.0, 3.0))
    made, run = task(prepare=lambda model: train_only(model, [HEAD]), options=options), trainer(tmp_path, 1)
    run.fit(made, crops())
    run.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    assert set(saved) == {f"model.{name}" for name, p in made.model.named_parameters() if p.requires_grad}


def test_testing_scores_every_case_in_order(tmp_path):
    made = task(spacing=lambda index: (1.0 + index, 2.0))
    result = trainer(tmp_path, 1).test(made, cases(), verbose=False)[0]
    assert made.tested == (0, 1, 2) and len(made.scores) == 3 and made.scores.classes == CLASSES[1:]
    made.eval()
    for index, (image, mask, _) in enumerate(cases()):
        guess = made.predict_case(image)[0].argmax(0)
        expected = score_case(guess, mask[0], CLASSES, (1.0 + index, 2.0))
        assert torch.equal(made.scores.dice[index], expected.dice[0])
        assert torch.equal(made.scores.hd95[index], expected.hd95[0])
    assert result["test/dice"] == pytest.approx(made.scores.primary().mean().item(), abs=1e-6)


def test_a_case_at_once_is_what_the_loss_sees(tmp_path):
    """On a case that needs no padding the logged loss is that of the network's own output."""
    made = task()
    image, mask = pictures(1, (32, 36), 7)
    loader = DataLoader([(image, mask, 0)], batch_size=None)
    logged = trainer(tmp_path, 1).validate(made, loader, verbose=False)[0]["val/loss"]
    made.eval()
    with torch.no_grad():
        assert logged == pytest.approx(made._loss(made(image), mask).item(), rel=1e-5)


def test_mixed_precision_trains_and_measures(tmp_path):
    made, run = task(options=SegmentOptions(window=(32, 32))), trainer(tmp_path, 30, precision="bf16-mixed")
    run.fit(made, crops())
    assert run.validate(made, cases(), verbose=False)[0]["val/dice"] > 0.5
    assert all(p.dtype == torch.float32 for p in made.model.parameters())


def test_windows_and_flips_reach_the_prediction():
    image = pictures(1, (37, 45), 3)[0]
    plain, windows, flips = (
        task(options=SegmentOptions(**options)).predict_case(image)
        for options in ({}, {"window": (16, 16), "overlap": 0.25}, {"flips": True})
    )
    assert plain.shape == windows.shape == flips.shape == (1, 3, 37, 45)
    for other in (windows, flips):
        assert not torch.allclose(plain, other, atol=1e-4)
        torch.testing.assert_close(other.sum(1), torch.ones(1, 37, 45))


def test_deep_supervision_trains_and_the_first_map_is_predicted(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = DynUNet(2, 1, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, [8] * 4, deep_supervision=True, deep_supr_num=2)
    made = SegmentTask(net, CLASSES, optimizer=OptimizerOptions(lr=0.01))
    run = trainer(tmp_path, 30)
    run.fit(made, crops())
    assert run.validate(made, cases(), verbose=False)[0]["val/dice"] > 0.6


@pytest.mark.parametrize("axes", [2, 3])
def test_channels_last_gives_the_same_probabilities(axes):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet(axes, 1, 3, (4, 8, 8), (2, 2))
    plain = SegmentTask(net, CLASSES)
    last = SegmentTask(copy.deepcopy(net), CLASSES, options=SegmentOptions(channels_last=True))
    image = torch.randn(1, 1, *[8] * axes, generator=torch.Generator().manual_seed(0))
    for made in (plain, last):
        made.configure_model()
    memory_format = torch.channels_last if axes == 2 else torch.channels_last_3d
    assert next(p for p in last.model.parameters() if p.ndim == axes + 2 and p.shape[1] > 1).is_contiguous(
        memory_format=memory_format
    )
    torch.testing.assert_close(plain.predict_case(image), last.predict_case(image))


def test_a_loss_that_is_not_finite_names_step_and_rate(tmp_path):
    made = task(optimizer=OptimizerOptions(lr=1e30, schedule="constant"))
    with pytest.raises(StateError, match=r"at step [1-9].*1e\+30"):
        trainer(tmp_path, 20).fit(made, crops())


def test_crops_the_network_cannot_halve_name_the_divisor(tmp_path):
    loader = DataLoader(TensorDataset(*pictures(4, (30, 30), 1)), batch_size=2)
    with pytest.raises(OptionError, match=r"multiples of 4, found \[30, 30\]"):
        trainer(tmp_path, 1).fit(task(), loader)


def test_a_network_with_another_number_of_classes_is_refused(tmp_path):
    made = SegmentTask(network(), (*CLASSES, "ring"))
    with pytest.raises(StateError, match="another number of classes"):
        trainer(tmp_path, 1).fit(made, crops())


def test_one_class_is_refused():
    with pytest.raises(OptionError, match=r"background and at least one.*\['lesion'\]"):
        SegmentTask(network(), ("lesion",))


@pytest.mark.parametrize(
    "options, error",
    [
        ({"loss": "dice"}, UnknownNameError),
        ({"class_weights": (1.0, -1.0)}, OptionError),
        ({"window": (32,)}, OptionError),
        ({"window": (32, 0)}, OptionError),
        ({"overlap": 1.0}, OptionError),
    ],
)
def test_senseless_options_are_refused(options, error):
    with pytest.raises(error, match=next(iter(options)) if error is OptionError else "dice_ce"):
        SegmentOptions(**options)


def test_class_weights_must_be_one_a_class():
    with pytest.raises(OptionError, match="2 values for 3 classes"):
        task(options=SegmentOptions(class_weights=(1.0, 2.0)))
