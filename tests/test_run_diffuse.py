"""Diffusion end to end on a tiny text-to-image pipeline: training, resuming, report, the merged pipeline, a source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from pipelines import SIZE, small_pipe
from sklearn.datasets import load_digits

import visionpeft as vp
from visionpeft.backbones.pipelines import open_pipeline
from visionpeft.errors import AdapterFileError, OptionError, UserError
from visionpeft.export import export_run
from visionpeft.pipeline import run
from visionpeft.recipe import load_recipe
from visionpeft.runs.finished import open_run
from visionpeft.runs.kinds import kind_of

WORDS = ("nil", "one", "two", "six")


def pictures(folder: Path) -> Path:
    """Forty-eight digits, each with a word beside it."""
    if not folder.is_dir():
        folder.mkdir()
        for number, pixels in enumerate(load_digits().images[:48]):
            Image.fromarray((255 - pixels * 15).astype("uint8")).resize((SIZE, SIZE)).save(folder / f"{number}.png")
            (folder / f"{number}.txt").write_text(WORDS[number % 4])
    return folder


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    if not (folder / "base").is_dir():
        small_pipe("StableDiffusionPipeline").save_pretrained(folder / "base")
    return {
        "name": "tiny-diffusion",
        "task": {"name": "diffuse", "ema": 0.8, "samples": {"count": 4, "steps": 2, "preview": 2}},
        "backbone": {
            "name": "diffusers/StableDiffusionPipeline",
            "pretrained": str(folder / "base"),
            "image_size": SIZE,
        },
        "method": {"name": "cp_lora", "rank": 2},
        "targets": ["linear", "conv"],
        "data": {"card": str(pictures(folder / "pictures")), "batch_size": 4},
        "trainer": {"max_steps": 6, "lr": 1e-2, "accelerator": "cpu", "checkpoint_every": 2, "evaluate_every": 3},
        "logging": {"tensorboard": False, "csv": False},
        **changes,
    }


def test_a_run_trains_draws_reports_and_hands_over_a_pipeline(tmp_path: Path) -> None:
    frozen = {"label": "untouched", "method": {"name": "frozen"}}
    result = run(recipe(tmp_path, compare=[frozen]), output=tmp_path / "run", progress=False)
    assert result.metric == "loss"
    other = result.row("untouched")
    assert other.gain == pytest.approx(other.value - result.main.value), "ahead is what is lower"
    assert "predictions differ" in result.merge_note
    page = result.report.read_text()
    assert "untouched" in page and "denoising loss" in page and "Samples" in page
    assert Image.open(result.folder / "grid.png").width > 200
    previews = sorted((result.folder / result.trials[0].folder / "previews").iterdir())
    assert [path.name for path in previews] == ["step-000003.png", "step-000006.png"]
    assert Image.open(previews[0]).size == (2 * SIZE, SIZE)

    path, parity = export_run(result.folder, "pipeline", tmp_path / "out")
    assert parity.relative <= 4 / 255
    plain: Any = DiffusionPipeline.from_pretrained(path)
    task: Any = open_run(result.folder).stages.task
    saved = open_pipeline(path)
    assert not any(".adapters." in name for name, _ in plain.unet.named_parameters())
    drawn = saved.family.sample(saved.pipe, ["one"], seeds=[5], steps=2, size=SIZE)
    assert (drawn.int() - task.sample(["one"], [5]).int()).abs().max() <= 4
    with pytest.raises(UserError, match="exists already"):
        export_run(result.folder, "pipeline", tmp_path / "out")


def test_the_adapter_of_a_run_loads_onto_any_pipeline_of_its_kind(tmp_path: Path) -> None:
    result = run(recipe(tmp_path), output=tmp_path / "run", progress=False)
    assert result.adapter is not None
    pipe = open_pipeline(tmp_path / "base")
    vp.load(pipe.denoiser, result.adapter)
    task: Any = open_run(result.folder, needs_data=False).stages.task
    wanted = task.sample(["two"], [1])
    found = pipe.family.sample(pipe.pipe, ["two"], seeds=[1], steps=2, size=SIZE)
    assert torch.equal(found, wanted)


@pytest.mark.slow
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = recipe(tmp_path)
    whole = run(data, output=tmp_path / "whole", progress=False)
    cut = tmp_path / "cut.partial"
    from visionpeft.tasks.diffuse import DiffuseTask

    step = DiffuseTask.training_step

    def stopping(self: DiffuseTask, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.global_step == 5:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patched:
        patched.setattr(DiffuseTask, "training_step", stopping)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(data, output=tmp_path / "cut", progress=False)
    assert cut.is_dir()
    again = run(cut, resume=True, progress=False)
    for file in ("merged.safetensors", "adapter/adapter.safetensors"):
        assert (again.folder / file).read_bytes() == (whole.folder / file).read_bytes(), file


def test_a_published_run_is_a_source_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONPEFT_CACHE", str(tmp_path / "cache"))
    source = run(
        recipe(tmp_path, name="source", publish=True, method={"name": "full"}, targets=[]),
        output=tmp_path / "source",
        progress=False,
    )
    pipe = open_pipeline("run:source")
    task: Any = open_run(source.folder).stages.task
    found = pipe.family.sample(pipe.pipe, ["six"], seeds=[0], steps=2, size=SIZE)
    assert (found.int() - task.sample(["six"], [0]).int()).abs().max() <= 4


def test_subject_driven_training_keeps_a_prior(tmp_path: Path) -> None:
    data = recipe(tmp_path)
    data["data"] = {**data["data"], "caption": "sks nil"}
    data["task"] = {**data["task"], "prior": {"caption": "nil", "pictures": 3}}
    result = run(data, output=tmp_path / "run", progress=False)
    assert set(kind_of(load_recipe(data)).open_data(load_recipe(data), *_draw(data)).captions) == {"sks nil"}
    assert result.main.value > 0


def test_five_pictures_of_a_subject_are_enough(tmp_path: Path) -> None:
    folder = tmp_path / "subject"
    folder.mkdir()
    for path in sorted(pictures(tmp_path / "pictures").glob("*.png"))[:5]:
        (folder / path.name).write_bytes(path.read_bytes())
    data = recipe(tmp_path, tune={"lr": [1e-3, 1e-2]})
    data["data"] = {"card": str(folder), "batch_size": 2, "caption": "sks nil"}
    result = run(data, output=tmp_path / "run", progress=False)
    assert result.main.val is not None and result.main.value > 0


def _draw(data: dict[str, Any]) -> tuple[Any, Any]:
    from visionpeft.runs.kinds import Draw
    from visionpeft.runs.stages import input_of

    return input_of(load_recipe(data)), Draw(0)


def test_what_a_recipe_may_not_ask_for(tmp_path: Path) -> None:
    good = recipe(tmp_path)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"method": {"name": "head_only"}}, "a denoiser has no classifier"),
        ({"backbone": {**good["backbone"], "image_size": None}}, r"image_size: say the pictures' sides"),
        ({"data": {**good["data"], "augment": "flip"}}, r"set cache_latents: false"),
        ({"task": {**good["task"], "min_snr": 0}}, r"task\.min_snr"),
        ({"data": {**good["data"], "tell": "label"}}, r"data\.tell"),
    ]
    for changes, message in bad:
        with pytest.raises(OptionError, match=message):
            load_recipe({**good, **changes})
    with pytest.raises(AdapterFileError, match="no pipeline folder"):
        run(
            recipe(tmp_path, backbone={**good["backbone"], "pretrained": str(tmp_path / "none")}), output=tmp_path / "r"
        )
    assert not (tmp_path / "r.partial").exists()


def test_only_diffusion_runs_become_pipelines(tmp_path: Path) -> None:
    from tiny import recipe as classification

    result = run(classification(trainer={"max_steps": 4}), output=tmp_path / "run", progress=False)
    with pytest.raises(OptionError, match="--to pipeline"):
        export_run(result.folder, "pipeline", tmp_path / "out")
