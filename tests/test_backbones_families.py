"""Backbones of open_clip, MONAI and diffusers: built quickly without memory, callable, honest about wrong options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from visionpeft import backbones
from visionpeft.errors import AdapterFileError, OptionError, UnknownNameError

# Parameters as the libraries' own constructors give them with the options of the papers.
NETWORKS = {
    "open_clip/ViT-B-32": 151_277_313,
    "open_clip/RN50": 102_007_137,
    "monai/UNet": 4_806_481,
    "monai/UNETR": 92_802_274,
    "monai/SwinUNETR": 62_186_708,
    "monai/SegResNet": 4_700_914,
    "monai/DynUNet": 16_543_650,
    "diffusers/UNet2DConditionModel": 859_520_964,
}


def call(backbone: backbones.Backbone) -> Any:
    example = backbone.example_input()
    return backbone.model(**example) if isinstance(example, dict) else backbone.model(example)


@pytest.mark.parametrize("name", NETWORKS)
def test_on_meta(name: str) -> None:
    backbone = backbones.load(name, pretrained=False, device="meta")
    assert sum(parameter.numel() for parameter in backbone.model.parameters()) == NETWORKS[name]
    assert all(parameter.is_meta for parameter in backbone.model.parameters())
    assert call(backbone) is not None
    assert len(backbone.input.mean) == len(backbone.input.std) == backbone.input.channels


def test_a_network_of_monai_on_the_cpu() -> None:
    backbone = backbones.load(
        "monai/UNet", pretrained=False, num_classes=3, image_size=32, spatial_dims=2, in_channels=2
    )
    assert call(backbone).shape == (1, 3, 32, 32)


def test_a_network_of_diffusers_on_the_cpu() -> None:
    small: dict[str, Any] = {
        "block_out_channels": [32, 64],
        "cross_attention_dim": 16,
        "norm_num_groups": 8,
        "attention_head_dim": 4,
    }
    blocks: dict[str, Any] = {
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    }
    backbone = backbones.load("diffusers/UNet2DConditionModel", pretrained=False, image_size=16, **small, **blocks)
    assert call(backbone).sample.shape == (1, 4, 16, 16)


def test_a_folder_of_diffusers(tmp_path: Path) -> None:
    from diffusers.models.unets.unet_2d import UNet2DModel

    original = UNet2DModel(sample_size=16, block_out_channels=(32, 32, 32, 32), norm_num_groups=8)
    original.save_pretrained(tmp_path)
    loaded = backbones.load("diffusers/UNet2DModel", pretrained=str(tmp_path)).model
    assert torch.equal(loaded.state_dict()["conv_in.weight"], original.state_dict()["conv_in.weight"])
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(AdapterFileError, match="is no whole diffusers/UNet2DModel"):
        backbones.load("diffusers/UNet2DModel", pretrained=str(tmp_path))


def test_local_weights_of_monai(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    original = backbones.load("monai/UNet", pretrained=False, spatial_dims=2).model
    save_file(original.state_dict(), path)
    loaded = backbones.load("monai/UNet", pretrained=str(path), spatial_dims=2)
    assert all(torch.equal(v, original.state_dict()[k]) for k, v in loaded.model.state_dict().items())
    with pytest.raises(AdapterFileError, match=r"does not fit UNet: .* is .*, not"):
        backbones.load("monai/UNet", pretrained=str(path))


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("monai/UNETr", {}, UnknownNameError, "unknown MONAI network 'UNETr'.*'UNETR'"),
        ("monai/UNet", {"chanels": 3}, OptionError, "has no option 'chanels'.*'channels'"),
        ("monai/UNet", {"strides": (2,)}, OptionError, "cannot be built with .*strides"),
        ("monai/UNet", {"pretrained": True}, OptionError, "no published weights"),
        ("open_clip/ViT-B32", {}, UnknownNameError, "unknown open_clip model 'ViT-B32'.*'ViT-B-32'"),
        ("open_clip/RN50", {"num_classes": 2}, OptionError, "has no classifier"),
        ("diffusers/UNet2D", {}, UnknownNameError, "unknown diffusers network 'UNet2D'.*'UNet2DModel'"),
        ("diffusers/UNet2DModel", {"pretrained": True}, OptionError, "no published weights"),
        ("diffusers/UNet2DModel", {"num_classes": 2}, OptionError, "has no classifier"),
    ],
)
def test_wrong_calls(name: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        backbones.load(
            name, **{"pretrained": False, "device": "meta" if "pretrained" not in options else "cpu", **options}
        )


def test_a_family_is_imported_when_asked_for() -> None:
    code = "import sys; from visionpeft import backbones; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"timm", "open_clip", "monai", "diffusers", "transformers"} & set(loaded)
