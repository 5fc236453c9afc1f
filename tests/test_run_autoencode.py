"""Autoencoding end to end: loss, crops, figures, report, and the folder that diffusers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from sklearn.datasets import load_digits

import visionpeft as vp
from visionpeft.errors import OptionError
from visionpeft.export.autoencoder import latents_of
from visionpeft.metrics.reconstruction import BEST, psnr, ssim
from visionpeft.pipeline import run
from visionpeft.recipe import load_recipe
from visionpeft.runs.kinds import Draw
from visionpeft.runs.stages import open_data
from visionpeft.tasks.autoencode import AutoencodeOptions, AutoencodeTask, recoloured

NETWORK: dict[str, Any] = {
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "latent_channels": 2,
    "norm_num_groups": 4,
}


def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(**NETWORK, sample_size=16).requires_grad_(False)


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """Sixty digits as pictures of 16×16 pixels, and an autoencoder of two levels."""
    pictures = folder / "pictures"
    if not pictures.is_dir():
        pictures.mkdir()
        for number, pixels in enumerate(load_digits().images[:60]):
            Image.fromarray((255 - pixels * 15).astype("uint8")).resize((16, 16)).save(pictures / f"{number}.png")
    return {
        "name": "tiny-vae",
        "task": {"name": "autoencode", "crop": 12, "kl": 1e-4, "edges": 0.5, "start_noise": 0.1, "recolour": 0.5},
        "backbone": {"name": "diffusers/AutoencoderKL", "pretrained": False, "image_size": 16, "options": NETWORK},
        "method": {"name": "full"},
        "data": {"card": str(pictures), "batch_size": 8},
        "trainer": {"max_steps": 12, "lr": 3e-3, "accelerator": "cpu", "checkpoint_every": 6, "evaluate_every": 6},
        "logging": {"tensorboard": False, "csv": False},
        **changes,
    }


def test_psnr_and_ssim_of_known_pictures() -> None:
    wanted = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 2
    found = torch.stack([wanted[0] + 0.1, wanted[1]])
    assert torch.allclose(psnr(found, wanted), torch.tensor([20.0, BEST]), atol=1e-3)
    assert ssim(found, wanted)[0] < ssim(found, wanted)[1] == 1
    assert ssim(found[:1], wanted[:1]).shape == (1,)


def test_crops_are_squares_of_the_picture_that_move() -> None:
    task = AutoencodeTask(vae(), options=AutoencodeOptions(crop=4))
    images = torch.arange(256.0).reshape(1, 1, 16, 16).expand(6, 3, 16, 16)
    found = task._cropped(images)
    assert found.shape == (6, 3, 4, 4)
    assert len(set(found[:, 0, 0, 0].tolist())) > 1
    assert torch.equal(found[:, :, 1:] - found[:, :, :-1], torch.full((6, 3, 3, 4), 16.0))


def test_recoloured_pictures_have_other_colours_and_the_same_drawing() -> None:
    images = torch.rand(40, 3, 8, 8) * 2 - 1
    assert recoloured(images, 0.0) is images
    found = recoloured(images, 0.5)
    changed = (found != images).flatten(1).any(1)
    assert 5 < changed.sum() < 35
    assert found.abs().max() <= 1
    ratios = found[changed].std((2, 3)) / images[changed].std((2, 3))
    assert ratios.min() >= 0.499 and ratios.max() <= 1.001
    likeness = [
        torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        for a, b in zip(found[:, 0], images[:, 0], strict=True)
    ]
    assert torch.allclose(torch.stack(likeness).abs(), torch.ones(40), atol=1e-4)


@pytest.mark.parametrize("name", ["kl", "edges"])
def test_every_part_of_the_loss_counts(name: str) -> None:
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    losses = []
    for weight in (0.0, 1.0):
        task = AutoencodeTask(vae(), options=AutoencodeOptions(**{"kl": 0.0, name: weight}))
        task.log_training = lambda loss: loss
        torch.manual_seed(0)
        losses.append(task.training_step((images, torch.arange(2)), 0).item())
    assert losses[1] > losses[0] * 1.01


def test_the_posterior_starts_as_narrow_as_asked_for() -> None:
    task = AutoencodeTask(vae(), options=AutoencodeOptions(start_noise=0.05))
    task.configure_model()
    posterior = task.model.encode(torch.rand(1, 3, 16, 16)).latent_dist  # pyright: ignore
    assert torch.allclose(posterior.std, torch.tensor(0.05))
    assert posterior.mean.std() > 0


def test_sides_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(OptionError, match=r"task\.crop is 7 pixels; this autoencoder needs a multiple of 2"):
        AutoencodeTask(vae(), options=AutoencodeOptions(crop=7))
    with pytest.raises(OptionError, match="side of the pictures is 15"):
        AutoencodeTask(vae())(torch.zeros(1, 3, 15, 15))


def test_adapters_start_where_the_autoencoder_is_and_change_what_comes_back() -> None:
    network, images = vae().eval(), torch.rand(1, 3, 16, 16)
    before = network(images).sample  # pyright: ignore
    report = vp.adapt(network, "lora", ["conv", "linear"], rank=2)
    assert not report.refused
    assert torch.allclose(network(images).sample, before, atol=1e-6)  # pyright: ignore
    with torch.no_grad():
        for name, factor in network.named_parameters():
            if ".adapters." in name and name.endswith("B"):
                factor.add_(0.1)
    assert not torch.allclose(network(images).sample, before, atol=1e-2)  # pyright: ignore


@pytest.mark.slow
def test_a_run_reports_and_publishes_what_diffusers_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONPEFT_CACHE", str(tmp_path / "cache"))
    adapted = {"label": "adapted", "method": {"name": "lora", "rank": 2}, "targets": ["conv", "linear"]}
    content = recipe(tmp_path, publish=True, compare=[adapted])
    result = run(content, output=tmp_path / "run", progress=False)
    assert result.metric == "psnr" and 0 < result.main.value < BEST
    assert 0 < result.row("adapted").adapter < result.main.trainable
    assert "Pictures and what comes back" in result.report.read_text()
    losses = [row["val/psnr"] for row in _history(result) if "val/psnr" in row]
    assert losses[-1] > losses[0]

    folder = tmp_path / "cache" / "sources" / "tiny-vae"
    published: Any = AutoencoderKL.from_pretrained(folder, use_safetensors=True)
    data = open_data(load_recipe(content), Draw(0))
    latents = latents_of(published, data)
    assert published.config["scaling_factor"] == 1
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3 and (latents.std((0, 2, 3)) - 1).abs().max() < 1e-3
    found = torch.cat(
        [psnr(*(_shown(x) for x in (published(images).sample, images))) for images, _ in data.ordered("test")]
    )
    assert found.mean().item() == pytest.approx(result.main.value, abs=1e-3), "the published network is the tested one"


def _shown(images: torch.Tensor) -> torch.Tensor:
    return (images.detach() / 2 + 0.5).clamp(0, 1)


def _history(result: Any) -> list[dict[str, float]]:
    return json.loads((result.folder / result.trials[0].folder / "history.json").read_text())
