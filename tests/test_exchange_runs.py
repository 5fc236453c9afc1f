"""The adapter of a diffusion run exported alone: checked by the tool it is for, with a card that shows samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from test_run_diffuse import recipe
from tiny import finished

from visionpeft.errors import OptionError
from visionpeft.export import export_run
from visionpeft.export.exchange import check
from visionpeft.pipeline import run
from visionpeft.runs.finished import open_run


def test_a_run_hands_its_adapter_to_diffusers(tmp_path: Path):
    result = run(recipe(tmp_path), output=tmp_path / "run", progress=False)
    path, parity = export_run(result.folder, "diffusers-lora", licence="mit")
    assert path == result.folder / "diffusers-lora" / "pytorch_lora_weights.safetensors"
    assert parity.relative < 2e-3 and "relative error" in parity.note and "diffusers" in parity.note
    plain: Any = DiffusionPipeline.from_pretrained(tmp_path / "base")
    plain.load_lora_weights(path.parent)
    ours: Any = open_run(result.folder, needs_data=False).stages.task.model
    inputs: dict[str, Any] = {"timestep": 500}
    inputs["encoder_hidden_states"] = torch.randn(1, 5, plain.unet.config.cross_attention_dim)
    inputs["sample"] = torch.randn(1, plain.unet.config.in_channels, 8, 8)
    with torch.no_grad():
        wanted, found = (net.eval()(**inputs, return_dict=False)[0] for net in (ours, plain.unet))
    assert torch.allclose(found, wanted, atol=1e-4)

    says = check(path).says
    assert says["method"] == "cp_lora" and says["recipe"] == "tiny-diffusion" and says["base_licence"] == "mit"
    card = (path.parent / "README.md").read_text()
    assert "cp_lora" in card and "weight_name='pytorch_lora_weights.safetensors'" in card and "samples/01.png" in card
    _, less = export_run(result.folder, "lycoris", rank=1)
    assert "ranks 1 to 1" in less.note


def test_runs_and_formats_that_do_not_go_together(tmp_path: Path):
    with pytest.raises(OptionError, match="--to merged takes no rank"):
        export_run(finished().folder, "merged", tmp_path / "m.safetensors", rank=2)
    with pytest.raises(OptionError, match="--to peft: it is for diffusion runs, this one is classify"):
        export_run(finished().folder, "peft", tmp_path / "p")
