"""The two small pipelines: built of stock classes, saved, opened again, and drawing the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from visionpeft import backbones
from visionpeft.backbones import Backbone
from visionpeft.backbones.pipelines import Pipeline, open_pipeline
from visionpeft.errors import AdapterFileError, OptionError, UnknownNameError

SMALL_SD = {"block_out_channels": (32, 64), "norm_num_groups": 8, "attention_head_dim": 32}
SMALL_DIT = {"num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "labels": ("face", "cat")}


def fresh(name: str, **options: object) -> Backbone:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return backbones.load(f"diffusers/{name}", pretrained="package", image_size=32, vae="random", **options)


@pytest.mark.parametrize(
    ("name", "options", "texts"),
    [("small-sd", SMALL_SD, ("a face", "", "a cat")), ("small-dit", SMALL_DIT, ("face", "", "cat"))],
)
def test_saved_and_opened_it_predicts_and_draws_the_same(name: str, options: dict, texts: tuple, tmp_path: Path):
    made = fresh(name, **options).pipeline
    made.pipe.save_pretrained(tmp_path)
    opened = backbones.load(f"diffusers/{name}", pretrained=str(tmp_path))
    assert opened.input.size == 32
    assert opened.model is opened.pipeline.denoiser
    assert not any(p.requires_grad for p in opened.model.parameters())
    assert torch.equal(predicted(made, texts), predicted(opened.pipeline, texts))
    drawn = made.family.sample(made.pipe, texts, seeds=[3, 4, 5], steps=2)
    assert drawn.shape == (3, 3, 32, 32)
    assert drawn.dtype == torch.uint8
    one = opened.pipeline.family.sample(opened.pipeline.pipe, texts[1:2], seeds=[4], steps=2)
    assert (drawn[1:2].int() - one.int()).abs().max() <= 1  # batches round otherwise


def predicted(pipeline: Pipeline, texts: tuple[str, ...]) -> torch.Tensor:
    """The denoiser's answer to latents of three pictures, each with its text."""
    family, stream = pipeline.family, torch.Generator().manual_seed(1)
    images = torch.rand(3, 3, 32, 32, generator=stream) * 2 - 1
    latents = family.latents(pipeline.pipe, images)
    assert latents.shape == (3, 4, 8, 8)
    conditioning = family.conditioning(pipeline.pipe, texts)
    assert all(len(value) == 3 for value in conditioning.values())
    with torch.no_grad():
        found = family.predict(pipeline.denoiser, latents, torch.tensor([0, 500, 999]), conditioning)
    assert found.shape == latents.shape
    return found


def test_latents_are_the_mode_of_the_posterior_or_a_draw_of_it():
    pipeline = fresh("small-dit", **SMALL_DIT).pipeline
    images = torch.zeros(1, 3, 32, 32)
    latents = [pipeline.family.latents(pipeline.pipe, images, g) for g in (None, None, torch.Generator())]
    assert torch.equal(latents[0], latents[1])
    assert not torch.equal(latents[0], latents[2])
    assert pipeline.family.pictures(pipeline.pipe, latents[0]).shape == images.shape


def test_classes_by_name_and_none_by_the_empty_one():
    pipeline = fresh("small-dit", **SMALL_DIT).pipeline
    assert pipeline.family.conditioning(pipeline.pipe, ["cat", "", "face"])["class_labels"].tolist() == [1, 1000, 0]
    with pytest.raises(UnknownNameError, match=r"unknown class of this pipeline 'cot'.*'cat'"):
        pipeline.family.conditioning(pipeline.pipe, ["cot"])


def test_all_blocks_see_the_same_class_while_training():
    """Left as it is in diffusers, each block would forget a tenth of the labels on its own."""
    pipeline = fresh("small-dit", **SMALL_DIT).pipeline
    pipeline.denoiser.train()
    first, *others = [predicted(pipeline, ("face",) * 3) for _ in range(8)]
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("name", ["small-sd", "small-dit", "StableDiffusionPipeline", "DDPMPipeline"])
def test_how_pictures_are_prepared_is_known_without_weights(name: str):
    backbone = backbones.load(f"diffusers/{name}", pretrained=False, device="meta", image_size=64)
    assert backbone.input == backbones.InputSpec(64, 3)
    assert backbone.model(**backbone.example_input()).sample.is_meta


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"name": "small-sb"}, UnknownNameError, "unknown diffusers network 'small-sb'.*'small-sd'"),
        ({"pretrained": True}, OptionError, "give pretrained 'package'"),
        ({"pretrained": "run:ddpm"}, AdapterFileError, "the source model 'ddpm' has not been trained here"),
        ({"pretrained": "gone", "vae": "random"}, AdapterFileError, "there is no pipeline folder gone"),
        ({"vae": "run:vae"}, AdapterFileError, "the source model 'vae' has not been trained here"),
        ({"vae": "nowhere"}, AdapterFileError, r"nowhere/config\.json is missing"),
        ({"attention_heads_dim": 8}, OptionError, "has no option 'attention_heads_dim'.*'attention_head_dim'"),
        ({"prediction_type": "v"}, OptionError, "prediction_type = 'v'.*v_prediction"),
        ({"prediction_type": "epsilon"}, OptionError, "zero_terminal_snr"),
        ({"name": "small-dit", "labels": ["a,b"]}, OptionError, "'a,b' holds a comma"),
    ],
)
def test_wrong_calls(call: dict, error: type[Exception], message: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("VISIONPEFT_CACHE", str(tmp_path))
    given = {"name": "small-sd", "pretrained": "package", "vae": "random", "image_size": 16, **call}
    with pytest.raises(error, match=message):
        backbones.load(**{**given, "name": f"diffusers/{given['name']}"})


def test_other_seeds_and_other_words_draw_other_pictures():
    pipeline = fresh("small-sd", **SMALL_SD).pipeline
    one, other, worded = (
        pipeline.family.sample(pipeline.pipe, [text], seeds=[seed], steps=2, guidance=3.0)
        for text, seed in (("a face", 1), ("a face", 2), ("a cat on a roof", 1))
    )
    assert not torch.equal(one, other)
    assert not torch.equal(one, worded)
    with pytest.raises(OptionError, match="2 texts want as many seeds, not 1"):
        pipeline.family.sample(pipeline.pipe, ["a", "b"], seeds=[1])


def test_a_folder_is_opened_by_its_path_alone(tmp_path: Path):
    fresh("small-dit", **SMALL_DIT).pipeline.pipe.save_pretrained(tmp_path)
    opened = open_pipeline(tmp_path)
    assert opened.pipe.labels == {"cat": 1, "face": 0}
    opened.pipe.save_pretrained(tmp_path / "again")
    assert open_pipeline(tmp_path / "again").pipe.labels == {"cat": 1, "face": 0}
