"""Folders of pipelines that lack something, are damaged, dangerous or of another kind: each is said by its name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pipelines import small_pipe
from safetensors.torch import load_file, save_file

from visionpeft import backbones
from visionpeft.backbones.pipelines import open_pipeline
from visionpeft.errors import AdapterFileError, UnknownNameError, UserError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "pipe"
    small_pipe("DiTPipeline").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "pipe"))


def changed(path: Path, **values: object) -> None:
    """Change keys of a JSON file; None removes one."""
    content = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "vae" / WEIGHTS), folder / "vae" / "diffusion_pytorch_model.bin")
    (folder / "vae" / WEIGHTS).unlink()


def truncated(folder: Path) -> None:
    path = folder / "transformer" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def with_state(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "transformer" / WEIGHTS
    state = load_file(path)
    change(state)
    save_file(state, path)


DAMAGES: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "no index": (
        lambda f: (f / "model_index.json").unlink(),
        AdapterFileError,
        r"model_index\.json is missing: this is no folder of a diffusers pipeline",
    ),
    "broken index": (
        lambda f: (f / "model_index.json").write_text("{"),
        AdapterFileError,
        r"model_index\.json cannot be read as JSON",
    ),
    "no component": (
        lambda f: shutil.rmtree(f / "vae"),
        AdapterFileError,
        r"component 'vae' \(diffusers\.AutoencoderKL\) is missing",
    ),
    "component not named": (
        lambda f: changed(f / "model_index.json", vae=None),
        AdapterFileError,
        "names no 'vae', which a DiTPipeline needs",
    ),
    "another class": (
        lambda f: changed(f / "vae" / "config.json", _class_name="UNet2DModel"),
        AdapterFileError,
        "vae holds a UNet2DModel, not the AutoencoderKL that is asked for",
    ),
    "unknown class": (
        lambda f: changed(f / "model_index.json", vae=["diffusers", "AutoencoderKLL"]),
        UnknownNameError,
        r"unknown class of diffusers .* 'AutoencoderKLL'.*'AutoencoderKL'",
    ),
    "unknown pipeline": (
        lambda f: changed(f / "model_index.json", _class_name="DitPipelin"),
        UnknownNameError,
        r"unknown diffusion pipeline 'DitPipelin'.*'DiTPipeline'",
    ),
    "no weights": (
        lambda f: (f / "vae" / WEIGHTS).unlink(),
        AdapterFileError,
        r"vae holds no weights \(\.safetensors\)",
    ),
    "pickle": (as_pickle, AdapterFileError, r"a pickle \(diffusion_pytorch_model\.bin\), which could run foreign code"),
    "truncated": (truncated, AdapterFileError, rf"transformer/{WEIGHTS} is truncated or no weights file"),
    "not a number": (
        lambda f: with_state(f, lambda s: s["proj_out_1.bias"].fill_(torch.nan)),
        AdapterFileError,
        r"transformer: proj_out_1\.bias holds 32 value\(s\) that are NaN or infinite",
    ),
    "a tensor less": (
        lambda f: with_state(f, lambda s: s.pop("proj_out_1.bias")),
        AdapterFileError,
        r"proj_out_1\.bias",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder(damage: str, folder: Path):
    damaged, error, message = DAMAGES[damage]
    damaged(folder)
    with pytest.raises(error, match=message):
        open_pipeline(folder)


def test_an_image_pipeline_of_another_family_is_named(whole: Path):
    with pytest.raises(AdapterFileError, match="holds a DiTPipeline: name the backbone diffusers/DiTPipeline"):
        backbones.load("diffusers/StableDiffusionPipeline", pretrained=str(whole))


def test_without_a_hub_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"the pipeline nobody/nothing could not be fetched from the hub.*give"):
        open_pipeline("nobody/nothing")


@pytest.mark.parametrize("source", ["./nowhere", "nowhere", "/no/such/folder"])
def test_no_folder(source: str):
    with pytest.raises(AdapterFileError, match="there is no pipeline folder"):
        open_pipeline(source)
