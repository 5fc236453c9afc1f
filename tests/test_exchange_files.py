"""What a file is and who loads it, the commands about files, the model card, and what adapter folders say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from denoisers import adapted, loaded, off, predicted, unet
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import visionpeft as vp
from visionpeft.errors import AdapterFileError, DataError, OptionError
from visionpeft.export.exchange import check, write
from visionpeft.export.exchange.base import licence_of
from visionpeft.export.exchange.card import Sample, model_card

KOHYA = {
    "lora_unet_conv_in.lora_down.weight": torch.ones(2, 4, 3, 3),
    "lora_unet_conv_in.lora_up.weight": torch.ones(8, 2, 1, 1),
    "lora_unet_conv_in.alpha": torch.tensor(1.0),
}


def saved(folder: Path, tensors: dict[str, torch.Tensor], header: dict[str, str] | None = None) -> Path:
    save_file(tensors, folder / "a.safetensors", header)
    return folder / "a.safetensors"


def test_a_plain_kohya_file(tmp_path: Path):
    found = check(saved(tmp_path, KOHYA))
    assert found.form == "kohya" and found.holds["layers"] == "1 LoRA" and found.holds["rank"] == "2"
    assert found.holds["scale"] == "0.5" and "float32" in found.holds["values"] and not found.dropped
    assert found.tools["diffusers"] == "load_lora_weights loads it" and found.tools["peft"].startswith("no")
    assert found.tools["visionpeft convert"] == "reads it, whole"


def test_alphas_that_differ_are_lost_by_diffusers(tmp_path: Path):
    other = {name.replace("conv_in", "conv_out"): t.clone() for name, t in KOHYA.items()}
    found = check(saved(tmp_path, {**KOHYA, **other, "lora_unet_conv_out.alpha": torch.tensor(4.0)}))
    assert "one alpha for all attention layers, where the file has 2" in found.tools["diffusers"]
    assert found.holds["scale"] == "0.5 (1×), 2.0 (1×)"


@pytest.mark.parametrize(
    ("more", "form", "kind", "diffusers", "dropped"),
    [
        ({f"lora_unet_x.hada_w{part}": 2 for part in ("1_a", "1_b", "2_a", "2_b")}, "lycoris", "1 LoHa", "refuses", 0),
        ({"lora_unet_x.lokr_w1": 2, "lora_unet_x.lokr_w2": 2}, "lycoris", "1 LoKr", "refuses", 0),
        ({"lycoris_x.diff": 2}, "lycoris", "1 full difference", "refuses", 0),
        ({"lora_unet_x.oft_blocks": 2}, "lycoris", "1 OFT or BOFT", "refuses", 1),
        ({"lora_unet_conv_in.dora_scale": 2}, "kohya", "1 LoRA with DoRA", "without DoRA's magnitudes", 0),
        ({"lora_te1_x.lora_down.weight": 2, "lora_te1_x.lora_up.weight": 2}, "kohya", "1 LoRA", "loads it", 1),
    ],
)  # fmt: skip
def test_other_kinds(tmp_path: Path, more: dict[str, int], form: str, kind: str, diffusers: str, dropped: int):
    tensors = {name: torch.ones(size, size) for name, size in more.items()}
    found = check(saved(tmp_path, KOHYA | tensors))
    assert found.form == form and kind in found.holds["layers"] and len(found.dropped) == dropped
    assert diffusers in found.tools["diffusers"]


def test_files_that_are_no_adapters(tmp_path: Path):
    with pytest.raises(AdapterFileError, match=r"holds no adapter of a known format; its keys: weight"):
        check(saved(tmp_path, {"weight": torch.ones(2)}))
    torch.save(KOHYA, tmp_path / "b.pt")
    with pytest.raises(AdapterFileError, match=r"is a pickle.*save_file\(torch.load\('.*b.pt', weights_only=True\)"):
        check(tmp_path / "b.pt")
    with pytest.raises(AdapterFileError, match="there is no adapter file or folder"):
        check(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AdapterFileError, match="holds 0 weights files"):
        check(tmp_path / "empty")


def test_a_folder_of_ours_says_what_it_is(tmp_path: Path):
    model = adapted(unet(), "cp_lora", ["conv_in"])
    folder = vp.save(model, tmp_path / "ours", about={"recipe": "ink", "base_licence": "mit"})
    found = check(folder)
    assert found.form == "visionpeft" and found.holds["method"] == "cp_lora" and found.holds["targets"] == "1 weights"
    assert found.says["recipe"] == "ink" and found.says["base_licence"] == "mit" and found.says["method"] == "cp_lora"
    with safe_open(folder / "adapter.safetensors", "pt") as content:
        assert json.loads(content.metadata()["visionpeft"]) == found.says
    loaded(unet(), folder)


def test_check_compares_with_a_network(tmp_path: Path):
    assert not check(saved(tmp_path, KOHYA), unet()).dropped
    other = {name.replace("conv_in", "elsewhere"): t for name, t in KOHYA.items()}
    with pytest.raises(AdapterFileError, match="another architecture"):
        check(saved(tmp_path, other), unet())


def command(*arguments: object, fails: bool = False) -> str:
    line = [sys.executable, "-P", "-m", "visionpeft", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if fails else 0), done.stderr
    return done.stderr if fails else done.stdout


@pytest.mark.slow
def test_the_commands(tmp_path: Path):
    base, model = tmp_path / "denoiser", adapted(unet(), "flora", ["conv_in", "*.to_k"])
    unet().save_pretrained(base)
    (base / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# A base\n")
    folder = vp.save(model, tmp_path / "ours")
    text = command("convert", folder, "--to", "kohya", "--base", base, "--rank", 1, "-o", tmp_path / "k.safetensors")
    assert "relative error" in text and "loaded with diffusers" in text and "k.safetensors" in text
    text = command("formats", "check", tmp_path / "k.safetensors", "--base", base)
    assert "kohya" in text and "base_licence" in text and "cc-by-4.0" in text and "load_lora_weights loads it" in text
    text = command("convert", folder, "--to", "lycoris", "--base", base)
    assert "error 0.0e+00" in text
    written, back = tmp_path / "ours-lycoris.safetensors", tmp_path / "b"
    command("convert", written, "--to", "visionpeft", "--base", base, "-o", back)
    assert off(predicted(loaded(unet(), back)), predicted(model), predicted(unet())) < 1e-4
    assert "unknown exchange format 'kohia'" in command("convert", folder, "--to", "kohia", "--base", base, fails=True)
    torch.save(KOHYA, tmp_path / "b.pt")
    assert "is a pickle" in command("formats", "check", tmp_path / "b.pt", fails=True)


def test_a_model_card(tmp_path: Path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "drawn.png")
    folder = tmp_path / "ink"
    done = write("kohya", folder / "ink.safetensors", adapted(unet(), "lora", ["conv_in"]), component="unet")
    says = {**check(done.path).says, "base": "org/base", "base_licence": "apache-2.0", "recipe": "emoji-ink"}
    samples = [Sample(tmp_path / "drawn.png", "a | cat [1]")]
    path = model_card(folder, "kohya", title="Ink", says=says, samples=samples, figures={"KID": "1.2"}, text="Emoji.")
    text = path.read_text()
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "apache-2.0" and front["base_model"] == "org/base" and "lora" in front["tags"]
    assert "pipe.load_lora_weights('ink', weight_name='ink.safetensors')" in text and "| KID | 1.2 |" in text
    assert "![a \\| cat (1)](samples/01.png)" in text and (folder / "samples" / "01.png").is_file()
    assert "`lora`" in text and "emoji-ink" in text and licence_of(folder) == {"base_licence": "apache-2.0"}


def test_cards_that_cannot_be_written(tmp_path: Path):
    with pytest.raises(OptionError, match="holds 0 weights files"):
        model_card(tmp_path, "kohya", title="x", says={})
    with pytest.raises(OptionError, match="format 'nothing'"):
        model_card(tmp_path, "nothing", title="x", says={})
    with pytest.raises(DataError, match=r"gone.png is no picture file"):
        model_card(tmp_path, "visionpeft", title="x", says={}, samples=[Sample(tmp_path / "gone.png")])
    assert not list(tmp_path.iterdir())
    text = model_card(tmp_path, "pipeline", title="x", says={}).read_text()
    assert "not stated: look it up" in text and "license" not in text.split("---")[1]
