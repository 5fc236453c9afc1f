"""The diffusion task on small pipelines of every family: loss, captions, running mean, prior preservation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from pipelines import PIPELINES, SIZE, small_pipe
from torch import nn
from torch.utils.data import DataLoader

import visionpeft as vp
from visionpeft.backbones.pipelines import Pipeline, open_pipeline
from visionpeft.errors import OptionError, StateError
from visionpeft.surgery.trainable import adapter_parameters
from visionpeft.tasks.diffuse import LEVELS, DiffuseOptions, DiffuseTask, FixedNoise
from visionpeft.tasks.diffusion.prior import Prior
from visionpeft.tasks.optimize import OptimizerOptions

CAPTIONS = ("cat", "dog", "cat", "dog")


def opened(name: str, folder: Path) -> Pipeline:
    small_pipe(name).save_pretrained(folder / name)
    return open_pipeline(folder / name)


def adapted(model: nn.Module) -> None:
    vp.adapt(model, "lora", targets=["linear"], rank=2)


def task(pipeline: Pipeline, **options: Any) -> DiffuseTask:
    optimizer = OptimizerOptions(lr=1e-2, warmup_steps=0)
    given = DiffuseOptions(**{"samples": 2, "steps": 2, **options})
    return DiffuseTask(pipeline, CAPTIONS, size=SIZE, prepare=adapted, optimizer=optimizer, options=given)


def pictures() -> list[tuple[torch.Tensor, torch.Tensor]]:
    images = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return [(images, torch.arange(4))]


def trained(made: DiffuseTask, steps: int = 3) -> DiffuseTask:
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    loader: Any = DataLoader(pictures(), batch_size=None)
    trainer.fit(made, loader, loader)
    trainer.test(made, loader, verbose=False)
    return made


def factors(made: DiffuseTask) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in adapter_parameters(made.model).values()])


@pytest.mark.parametrize("name", PIPELINES)
def test_every_family_trains_measures_and_draws(name: str, tmp_path: Path) -> None:
    made = task(opened(name, tmp_path))
    made.configure_model()
    before = factors(made)
    trained(made)
    assert (factors(made) - before).abs().max() > 1e-4
    assert made.losses.shape == (4,) and made.losses.isfinite().all()
    assert made.sampled.shape == (2, 3, SIZE, SIZE) and made.sampled.dtype == torch.uint8
    assert made.sampled_positions.tolist() == [0, 2]


def test_losses_do_not_depend_on_the_batch_and_equal_a_plain_sum(tmp_path: Path) -> None:
    made = task(opened("StableDiffusionPipeline", tmp_path))
    made.configure_model()
    made.eval()
    ((images, positions),) = pictures()
    made._measure((images, positions))
    for row in range(4):
        made._measure((images[row : row + 1], positions[row : row + 1]))
    whole, *single = [losses for _, losses in made._measured]
    assert torch.allclose(whole, torch.cat(single), rtol=1e-4)
    clean = made.pipeline.family.latents(made.pipeline.pipe, images[:1])
    total = 0.0
    for number in range(LEVELS):
        level = torch.tensor([int((number + 0.5) / LEVELS * 1000)])
        noise = torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(number))[None]
        noisy = made.pipeline.pipe.scheduler.add_noise(clean, noise, level)
        text = made.pipeline.pipe.encode_prompt(["cat"], "cpu", 1, False)[0]
        total += (made.model(noisy, level, encoder_hidden_states=text).sample - noise).square().mean().item()
    assert whole[0].item() == pytest.approx(total / LEVELS, rel=1e-4)


def test_captions_matter_and_are_dropped_as_often_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = task(opened("StableDiffusionPipeline", tmp_path), drop_caption=0.25)
    said: list[str] = []
    monkeypatch.setattr(made, "_loss", lambda clean, texts: said.extend(texts) or torch.zeros(()))
    monkeypatch.setattr(made, "log_training", lambda loss: loss)
    torch.manual_seed(0)
    for _ in range(100):
        made.training_step(pictures()[0], 0)
    assert said.count("") == pytest.approx(100, abs=30)
    assert said.count("cat") == pytest.approx(150, abs=40)
    cat, nothing = made.conditions.of(["cat"]), made.conditions.of([""])
    assert not torch.equal(cat["encoder_hidden_states"], nothing["encoder_hidden_states"])


def test_the_running_mean_is_kept_and_lags_behind(tmp_path: Path) -> None:
    pipeline = opened("DDPMPipeline", tmp_path)
    last = factors(trained(task(pipeline), steps=6))
    pipeline = open_pipeline(tmp_path / "DDPMPipeline")
    mean = factors(trained(task(pipeline, ema=0.9), steps=6))
    assert not torch.equal(mean, last)
    assert mean.norm() < last.norm(), "it started where B is zero"


def test_prior_preservation_draws_by_the_untouched_pipeline(tmp_path: Path) -> None:
    pipeline = opened("StableDiffusionPipeline", tmp_path)
    wanted = pipeline.family.sample(pipeline.pipe, ["dog"] * 3, seeds=[0, 1, 2], steps=2, size=SIZE)
    made = task(pipeline, prior=Prior("dog", pictures=3, weight=0.5, steps=2))
    trained(made, steps=1)
    latents = pipeline.family.latents(pipeline.pipe, wanted.float() / 127.5 - 1)
    assert torch.allclose(made._prior, latents, atol=1e-5)


def test_options_change_the_loss_as_they_say(tmp_path: Path) -> None:
    pipeline = opened("DDPMPipeline", tmp_path)
    clean = pictures()[0][0]

    def loss(**options: Any) -> float:
        made = task(pipeline, **options)
        torch.manual_seed(0)
        return made._loss(clean, [""] * 4).item()

    plain = loss()
    assert loss(min_snr=5.0) < plain, "weights are at most 1"
    assert loss(offset_noise=0.5) != plain
    assert loss(timesteps="logit_normal") != plain
    with pytest.raises(OptionError, match=r"task\.min_snr"):
        task(opened("FluxPipeline", tmp_path), min_snr=5.0)


def test_checkpointing_changes_no_gradient(tmp_path: Path) -> None:
    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        made = task(opened("StableDiffusionPipeline", tmp_path), checkpointing=checkpointing)
        torch.manual_seed(0)
        made.configure_model()
        made.train()
        torch.manual_seed(1)
        made._loss(torch.ones(2, 4, SIZE // 2, SIZE // 2), ["cat", "dog"]).backward()
        return [p.grad for p in adapter_parameters(made.model).values() if p.grad is not None]

    plain, checkpointed = gradients(False), gradients(True)
    assert plain and any(gradient.abs().max() > 0 for gradient in plain)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(plain, checkpointed, strict=True))


def test_latents_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline, calls = opened("StableDiffusionPipeline", tmp_path), []
    encode = type(pipeline.family).latents
    monkeypatch.setattr(
        type(pipeline.family),
        "latents",
        lambda self, pipe, images: calls.append(len(images)) or encode(self, pipe, images),
    )
    for cached, wanted in ((True, [4]), (False, [4, 4])):
        made = task(pipeline, cache_latents=cached)
        calls.clear()
        first, second = (made._encoded(*pictures()[0]) for _ in range(2))
        assert calls == wanted
        assert torch.equal(first, second)


def test_fixed_noise_sees_the_network_it_is_given(tmp_path: Path) -> None:
    made = task(opened("DiTPipeline", tmp_path))
    made.configure_model()
    images = pictures()[0][0]
    before = FixedNoise(made, made.model)(images)
    assert torch.equal(before, FixedNoise(made, made.model)(images))
    with torch.no_grad():
        for parameter in adapter_parameters(made.model).values():
            parameter.add_(0.3)
    assert not torch.allclose(before, FixedNoise(made, made.model)(images))


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    made = task(opened("DDPMPipeline", tmp_path))
    made.optimizer_options = OptimizerOptions(lr=1e30, warmup_steps=0)
    with pytest.raises(StateError, match="training loss became"):
        trained(made, steps=20)
