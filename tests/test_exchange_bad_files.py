"""Files that no adapter of ours can be made of: each is refused with what is wrong, and nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from denoisers import LAYERS, adapted, dit, kohya, unet
from safetensors.torch import save_file

import visionpeft as vp
from visionpeft.errors import AdapterFileError, OptionError
from visionpeft.export.exchange import convert, read, write


def bad(folder: Path, kind: str) -> Path:
    names = {path: "lora_unet_" + path.replace(".", "_") for path in LAYERS}
    state, file = kohya(names), folder / "a.safetensors"
    key = next(iter(state)).partition(".")[0]
    if kind == "pickle":
        file = folder / "a.pt"
        torch.save(state, file)
        return file
    changed = {
        "layer": {
            "lora_unet_nowhere.lora_down.weight": torch.ones(1, 4),
            "lora_unet_nowhere.lora_up.weight": torch.ones(4, 1),
        },
        "shape": {f"{key}.lora_down.weight": torch.ones(2, 5, 3, 3)},
        "rotation": {"lora_unet_conv_out.oft_blocks": torch.ones(2, 4, 4)},
        "input gain": {f"{key}.dora_scale": torch.ones(1, 4, 1, 1)},
        "norm": {"lora_unet_conv_norm_out.w_norm": torch.ones(8)},
        "stranger": {"lora_unet_conv_out.magic": torch.ones(8)},
        "cut": {},
    }
    save_file(state | changed[kind], file)
    if kind == "cut":
        file.write_bytes(file.read_bytes()[:-50])
    return file


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("pickle", r"is a pickle.*weights_only=True"),
        ("layer", r"another architecture: 1 of 4 layers are not in this UNet2DConditionModel.*nowhere"),
        ("shape", r"do not make a change of conv_in.*another architecture"),
        ("rotation", r"OFT or BOFT: rotates the weight"),
        ("input gain", r"one magnitude an input channel"),
        ("norm", r"norm difference: changes a normalisation layer"),
        ("stranger", r"belongs to no layer of a known kind"),
        ("cut", r"is truncated or no safetensors file"),
    ],
)
def test_bad_files(tmp_path: Path, kind: str, message: str):
    with pytest.raises(AdapterFileError, match=message):
        read(bad(tmp_path, kind), unet(), tmp_path / "ours", component="unet")
    assert not (tmp_path / "ours").exists()


def test_adapters_for_another_architecture(tmp_path: Path):
    path = write("peft", tmp_path / "p", adapted(dit(), "lora", ["*.to_q"]), component="transformer").path
    with pytest.raises(AdapterFileError, match="another architecture: 2 of 2 layers"):
        read(path, unet(), tmp_path / "ours", component="unet")
    folder = vp.save(adapted(dit(), "lora", ["*.to_q"]), tmp_path / "dit")
    with pytest.raises(AdapterFileError, match="another base"):
        convert(folder, "kohya", tmp_path / "k.safetensors", unet(), component="unet")
    with pytest.raises(OptionError, match="give the plain one"):
        convert(folder, "peft", tmp_path / "q", adapted(dit()), component="transformer")


def test_a_peft_folder_without_its_configuration(tmp_path: Path):
    path = write("peft", tmp_path / "p", adapted(unet(), "lora", ["conv_in"]), component="unet").path
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "BOFT"}))
    with pytest.raises(AdapterFileError, match=r"peft_type is 'BOFT'; LORA, LOHA and LOKR"):
        read(path, unet(), tmp_path / "ours", component="unet")
    (path / "adapter_config.json").unlink()
    with pytest.raises(AdapterFileError, match="the alpha of a peft adapter is unknown"):
        read(path, unet(), tmp_path / "ours", component="unet")
