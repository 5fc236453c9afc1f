"""Recipes whose base is held in few bits: training, the run folder opened again, and every hand-over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from test_run_diffuse import recipe as diffusion_recipe
from tiny import recipe

from visionpeft.errors import OptionError
from visionpeft.export import export_run
from visionpeft.pipeline import run
from visionpeft.runs.finished import open_run
from visionpeft.runs.result import RunResult
from visionpeft.surgery.quantized import is_quantized

pytest.importorskip("torchao", reason="the extra `quant` is not installed")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    folder = tmp_path_factory.mktemp("quantized")
    data = recipe(
        backbone={"quantize": "int8"},
        compare=[
            {"label": "head only", "method": {"name": "head_only"}},
            {"label": "full", "method": {"name": "full"}},
        ],
    )
    return run(data, output=folder / "run", progress=False)


def quantized(model: torch.nn.Module) -> set[str]:
    return {name.removesuffix(".weight") for name, weight in model.named_parameters() if is_quantized(weight)}


@pytest.mark.parametrize("label", ["lora", "head only", "full"])
def test_the_opened_run_is_rounded_but_for_what_trains(finished: RunResult, label: str):
    model = open_run(finished.folder, label=label).stages.task.model
    frozen = {f"blocks.0.{part}" for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    assert quantized(model) == (set() if label == "full" else frozen)
    assert not is_quantized(model.head.weight)


def test_the_plan_says_what_was_rounded(finished: RunResult):
    notes = json.loads((finished.folder / "plans" / "lora.json").read_text())["notes"]
    assert any(note.startswith("4 Linears in int8: ") for note in notes)


@pytest.mark.parametrize("form", ["merged", "onnx"])
def test_hand_overs_hold_the_rounded_values_in_full(finished: RunResult, tmp_path: Path, form: str):
    _, parity = export_run(finished.folder, form, tmp_path / f"model.{'onnx' if form == 'onnx' else 'safetensors'}")
    assert parity.relative < 1e-4


def test_an_unknown_form_is_refused():
    with pytest.raises(OptionError, match=r"backbone\.quantize.*int8"):
        run(recipe(backbone={"quantize": "int2"}), progress=False)


@pytest.mark.slow
def test_an_adapter_on_a_rounded_pipeline_goes_to_other_tools(tmp_path: Path):
    data = diffusion_recipe(tmp_path)
    data["backbone"]["quantize"] = "int8"
    made = run(data, output=tmp_path / "run", progress=False)
    assert quantized(open_run(made.folder).stages.task.model)
    for form in ("diffusers-lora", "peft"):
        _, parity = export_run(made.folder, form)
        assert parity.relative < 1e-3
    path, _ = export_run(made.folder, "pipeline")
    plain = DiffusionPipeline.from_pretrained(path)
    assert not any(map(is_quantized, plain.unet.parameters()))
