"""Every family of pipelines: saved and opened, called as the plain pipe calls it, drawn from, and adapted whole."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from pipelines import PIPELINES, SIZE, small_pipe
from torch import Tensor, nn

import visionpeft as vp
from visionpeft import backbones
from visionpeft.backbones.pipelines import Pipeline, open_pipeline
from visionpeft.backbones.pipelines.flux import unpack
from visionpeft.surgery.targets import resolve, weights_of

TEXTS = ("cat", "dog", "cat")
LATENT = (3, 4, SIZE // 2, SIZE // 2)
families = pytest.mark.parametrize("name", PIPELINES)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small pipelines, each in a folder of its name."""
    root = tmp_path_factory.mktemp("pipelines")
    for name in PIPELINES:
        small_pipe(name).save_pretrained(root / name)
    return root


@families
def test_opened_by_folder_it_predicts_like_the_plain_pipe(name: str, saved: Path):
    """What the family computes for training is what the pipe computes when it draws, from texts to prediction."""
    opened = open_pipeline(saved / name)
    noisy, time, expected = first_call(opened, guidance=1.0)
    assert predicted_like(opened, TEXTS, noisy, time, expected)
    assert not predicted_like(opened, TEXTS, noisy, time - 500, expected)


@pytest.mark.parametrize("name", sorted(set(PIPELINES) - {"DDPMPipeline", "FluxPipeline"}))
def test_the_empty_text_is_what_the_plain_pipe_is_guided_away_from(name: str, saved: Path):
    opened = open_pipeline(saved / name)
    noisy, time, expected = first_call(opened, guidance=3.0)
    none = ("",) * len(TEXTS)
    texts = (*TEXTS, *none) if name == "DiTPipeline" else (*none, *TEXTS)
    assert predicted_like(opened, texts, noisy, time, expected)


def predicted_like(opened: Pipeline, texts: tuple[str, ...], noisy: Tensor, time: Tensor, expected: Tensor) -> bool:
    conditioning = opened.family.conditioning(opened.pipe, texts)
    assert all(len(value) == len(texts) for value in conditioning.values())
    with torch.no_grad():
        found = opened.family.predict(opened.denoiser, noisy, time, conditioning)
    assert found.shape == noisy.shape
    return torch.allclose(found, expected[:, : noisy.shape[1]], atol=1e-5)


def first_call(opened: Pipeline, guidance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy latents, the scheduler's time and the prediction of the first step of the plain pipe."""
    calls: list[tuple[Any, Any, Any]] = []
    hook = opened.denoiser.register_forward_hook(lambda _, a, k, y: calls.append((a, k, y)), with_kwargs=True)
    opened.family.sample(opened.pipe, TEXTS, seeds=[1, 2, 3], steps=1, guidance=guidance, size=SIZE)
    hook.remove()
    positional, named, output = calls[0]
    noisy = positional[0] if positional else named.get("hidden_states", named.get("sample"))
    time = named.get("timestep", positional[1] if len(positional) > 1 else None)
    predicted = output[0] if isinstance(output, tuple) else output.sample
    if type(opened.pipe).__name__ == "FluxPipeline":
        noisy, predicted, time = unpack(noisy, *LATENT[2:]), unpack(predicted, *LATENT[2:]), time * 1000
    return noisy, torch.as_tensor(time).expand(len(noisy)), predicted


@families
def test_pictures_depend_on_their_seed_alone(name: str, saved: Path):
    opened = open_pipeline(saved / name)
    together, alone = (
        opened.family.sample(opened.pipe, TEXTS[part], seeds=[5, 6, 7][part], steps=2, size=SIZE)
        for part in (slice(0, 3), slice(1, 2))
    )
    assert together.shape == (3, 3, SIZE, SIZE)
    assert together.dtype == torch.uint8
    assert (together[1:2].int() - alone.int()).abs().max() <= 1  # another batch rounds otherwise
    assert not torch.equal(together[0], together[1])


@families
def test_as_a_backbone_the_whole_denoiser_is_adapted(name: str, saved: Path):
    backbone = backbones.load(f"diffusers/{name}", pretrained=str(saved / name), image_size=SIZE)
    assert backbone.model is backbone.pipeline.denoiser
    assert backbone.input == backbones.InputSpec(SIZE, 3)
    matrices = {id(p): p.numel() for p in backbone.model.parameters() if p.dim() >= 2}
    paths = [weight.path for weight in weights_of(backbone.model)]
    assert sum(prod(t.site.shape) for t in resolve(backbone.model, paths)) == sum(matrices.values())
    before = backbone.pipeline.family.sample(backbone.pipeline.pipe, ("cat",), seeds=[1], steps=2, size=SIZE)
    report = vp.adapt(backbone.model, "lora", paths, example=backbone.example_input(), rank=2)
    assert (len(report.sites), report.refused, report.dead) == (len(paths), [], [])
    stirred(backbone.model)
    after = backbone.pipeline.family.sample(backbone.pipeline.pipe, ("cat",), seeds=[1], steps=2, size=SIZE)
    assert not torch.equal(before, after)


def stirred(model: nn.Module) -> None:
    """Move the factors that start at zero."""
    with torch.no_grad():
        for parameter in vp.adapter_parameters(model).values():
            if not parameter.any():
                parameter.fill_(0.1)


@families
def test_latents_and_back(name: str, saved: Path):
    opened = open_pipeline(saved / name)
    images = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = opened.family.latents(opened.pipe, images)
    back = opened.family.pictures(opened.pipe, latents)
    assert back.shape == images.shape
    if name == "DDPMPipeline":
        assert torch.equal(back, images)
    else:
        assert latents.shape == (2, *LATENT[1:])


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "StableDiffusion3Pipeline"])
def test_a_prompt_too_long_warns_with_what_is_cut(name: str, saved: Path):
    opened = open_pipeline(saved / name)
    with pytest.warns(UserWarning, match=r"1 of 2 prompts have more than the 8 tokens .* has 10 and loses 'y z'"):
        opened.family.conditioning(opened.pipe, ["a cat", "s t u v w x y z"])
    with pytest.warns(UserWarning, match="loses 'y z'"):
        opened.family.sample(opened.pipe, ["s t u v w x y z"], seeds=[1], steps=1, size=SIZE)


def test_negative_prompts_count_where_there_are_any(saved: Path):
    for name in ("StableDiffusionPipeline", "FluxPipeline"):
        opened = open_pipeline(saved / name)
        drawn = [
            opened.family.sample(opened.pipe, ["cat"], seeds=[1], steps=2, guidance=6.0, size=SIZE, negative=against)
            for against in (None, "dog")
        ]
        assert not torch.equal(*drawn), name
    dit = open_pipeline(saved / "DiTPipeline")
    with pytest.raises(vp.errors.OptionError, match="negative = 'dog': a DiTPipeline takes no negative prompts"):
        dit.family.sample(dit.pipe, ["cat"], seeds=[1], negative="dog")
    with pytest.raises(vp.errors.OptionError, match="size = 32: a DiTPipeline draws pictures of 16 pixels alone"):
        dit.family.sample(dit.pipe, ["cat"], seeds=[1], size=32)
