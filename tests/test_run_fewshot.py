"""Few-shot runs from recipe to folder: prompts, controls, halves of the classes, forgetting, cached features."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from tinyclip import config, finished, pictures, recipe
from torch.testing import assert_close
from typer.testing import CliRunner

import visionpeft as vp
from visionpeft.cli import app
from visionpeft.data.fewshot import NEW, FewShotData
from visionpeft.errors import DataError, OptionError, UserError
from visionpeft.export import export_run
from visionpeft.pipeline import run
from visionpeft.recipe import entries, load_recipe
from visionpeft.runs.finished import open_run
from visionpeft.runs.kinds import Draw
from visionpeft.runs.kinds.fewshot import MAIN
from visionpeft.runs.stages import build


def test_adapting_learns_what_zero_shot_cannot():
    result = finished()
    assert result.metric == "top1"
    assert result.main.value > result.row("zero-shot").value + 0.2  # random towers know nothing
    assert result.row("linear probe").value > 0.5  # but their features tell digits apart


def test_controls_train_nothing():
    result = finished()
    for label in ("zero-shot", "Tip-Adapter", "linear probe", "nearest centroid"):
        assert result.row(label).trainable == 0 and result.row(label).lr is None


def test_both_halves_and_the_other_data_set_are_tested():
    result = finished()
    figures = result.main.figures
    assert {NEW, "harmonic mean", "on numbers"} <= set(figures)
    base, new = result.main.value, figures[NEW]
    by_seed = figures["harmonic mean"]
    assert by_seed == pytest.approx(2 * base * new / (base + new))


def test_zero_shot_forgets_nothing_between_seeds():
    trials = [trial for trial in finished().trials if trial.entry == "zero-shot"]
    opened = [finished().folder / trial.folder / "predictions.safetensors" for trial in trials]
    assert opened[0].read_bytes() == opened[1].read_bytes()


def test_the_adapter_folder_fits_a_plain_open_clip_model(tmp_path: Path):
    opened = open_run(finished().folder)
    open_clip.add_model_config(config(tmp_path))
    images, tokens = torch.randn(2, 3, 16, 16), opened.stages.task.tokens[:, 0]  # pyright: ignore
    plain = open_clip.create_model("tiny-clip")
    plain.load_state_dict({k: v for k, v in opened.stages.task.model.state_dict().items() if ".adapters." not in k})
    vp.load(plain, finished().folder / "adapter")
    wanted = opened.stages.task.model.eval().encode_text(tokens)  # pyright: ignore[reportCallIssue]
    assert_close(plain.eval().encode_text(tokens), wanted)  # pyright: ignore[reportCallIssue]
    assert images.shape[0] == 2


def test_merged_weights_are_open_clips_own(tmp_path: Path):
    merged = finished().merged
    assert merged is not None
    open_clip.add_model_config(config(tmp_path))
    plain = open_clip.create_model("tiny-clip", pretrained=str(merged)).eval()
    opened = open_run(finished().folder)
    images = opened.stages.task.model.eval().encode_image(torch.ones(1, 3, 16, 16))  # pyright: ignore
    assert_close(plain.encode_image(torch.ones(1, 3, 16, 16)), images, rtol=1e-3, atol=1e-4)  # pyright: ignore


def test_the_run_exports_what_plain_open_clip_loads(tmp_path: Path):
    path, parity = export_run(finished().folder, "open-clip", tmp_path / "clip")
    model = open_clip.create_model(f"local-dir:{path}").eval()
    images, opened = torch.ones(1, 3, 16, 16), open_run(finished().folder)
    assert parity.relative < 1e-3
    assert_close(model.encode_image(images), opened.stages.task.model.eval().encode_image(images), rtol=1e-3, atol=1e-4)  # pyright: ignore


def test_predict_gives_labels_without_the_data_set(tmp_path: Path):
    files = sorted(pictures(tmp_path / "new", count=2).rglob("*.png"))
    found = CliRunner().invoke(app, ["predict", str(finished().folder), *map(str, files), "--top", "2", "--json"])
    assert found.exit_code == 0, found.output
    labels = json.loads(found.stdout)
    assert len(labels) == 4 and len(labels[0]["best"]) == 2
    assert 0 < sum(best["probability"] for best in labels[0]["best"]) <= 1.0001


@pytest.mark.parametrize("targets", (["attn.qkv@text"], ["attn.qkv@image.top"]))
def test_cached_features_change_nothing(tmp_path: Path, targets: list[str]):
    found = []
    for cached in (True, False):
        trainer = {"max_steps": 4, "lr": 0.01, "accelerator": "cpu"}
        changes = {"task": {"name": "fewshot", "cache_features": cached}, "targets": targets, "trainer": trainer}
        result = run(recipe(tmp_path, **changes), output=tmp_path / f"{cached}", progress=False)
        found.append(result)
    states = [open_run(result.folder).stages.task.model.state_dict() for result in found]
    for name, value in states[0].items():
        assert_close(states[1][name], value, rtol=1e-4, atol=1e-5)
    assert found[0].main.value == found[1].main.value


def test_augmented_training_images_are_not_cached(tmp_path: Path):
    data = {"card": "digits", "shots": 2, "val_shots": 2, "batch_size": 20, "augment": "standard"}
    stages = build(load_recipe(recipe(tmp_path, data=data, targets=["attn.qkv@text"])), Draw(0))
    stages.task.configure_model()
    training, testing = next(iter(stages.data.train_dataloader()))[0], next(iter(stages.data.val_dataloader()))[0]
    assert isinstance(training, torch.Tensor) and training.shape[1:] == (3, 16, 16)
    assert testing.hidden.shape[1:] == (16,)


def test_prompts_are_the_recipes(tmp_path: Path):
    task = {"name": "fewshot", "templates": ["the digit {}", "a scan of {}"]}
    stages = build(load_recipe(recipe(tmp_path, task=task)), Draw(0))
    assert stages.data.prompts.texts[3] == ("the digit three", "a scan of three")
    assert stages.task.tokens.shape[:2] == (10, 2)  # pyright: ignore[reportAttributeAccessIssue]


def test_a_shot_sweep_reaches_every_entry(tmp_path: Path):
    compare = [{"label": "zero-shot", "method": {"name": "frozen"}}]
    trainer = {"max_steps": 2, "accelerator": "cpu"}
    made = recipe(tmp_path, sweep={"data.shots": [1, 2]}, compare=compare, trainer=trainer)
    result = run(made, output=tmp_path / "sweep", progress=False)
    assert [row.label for row in result.rows] == [
        "lora, shots 1",
        "lora, shots 2",
        "zero-shot, shots 1",
        "zero-shot, shots 2",
    ]
    page = result.report.read_text()
    assert "1 to 2 shots a class" in page
    assert f"points against zero-shot, shots {result.main.swept}" in page, "the rival saw as much as the main entry"
    assert '<td class="t">zero-shot</td>' in page, "a line a method, a column a value"
    assert "Figure of merit and parameters" not in page, "shots change no number of parameters"


def test_the_report_shows_classes_before_and_after():
    page = finished().report.read_text()
    assert "most often taken for" in page and "zero-shot" in page and "Confusion matrix" in page


def test_predictions_keep_every_test_set():
    stages = open_run(finished().folder).stages
    assert list(stages.task._classifiers) == [MAIN, NEW, "numbers"]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    (
        ({"task": {"name": "fewshot", "readout": "tip_adapter"}}, UserError, "frozen"),
        ({"task": {"name": "fewshot", "features": "tower"}}, UserError, "joint space"),
        ({"method": {"name": "head_only"}}, UserError, "linear_probe"),
        ({"task": {"name": "fewshot", "templates": ["no place for it"]}}, DataError, "no place for it"),
        ({"task": {"name": "fewshot", "templates": "nowhere.yaml"}}, DataError, "nowhere.yaml"),
        (
            {"task": {"name": "fewshot", "templates": [f"{'a ' * 40}{{}}"]}},
            DataError,
            "cannot tell the classes '0' and '1'",
        ),
        ({"data": {"card": "digits", "shots": 4000}}, DataError, "fewer than the 4000 shots"),
        ({"data": {"card": "digits", "forgetting": ["digits"]}}, OptionError, "trained on"),
        (
            {"data": {"card": "digits", "shots": 2, "forgetting": ["mnist", "mnist"]}},
            OptionError,
            "'mnist' is named twice",
        ),
        ({"data": {"card": "captions-small", "shots": 2}}, DataError, "holds captions, not images with classes"),
        ({"backbone": {"name": "timm/resnet18", "pretrained": False}}, OptionError, "open_clip"),
    ),
)
def test_wrong_recipes_say_what_is_wrong(tmp_path: Path, changes: dict, error: type[Exception], words: str):
    with pytest.raises(error, match=words):
        run(recipe(tmp_path, **changes), output=tmp_path / "wrong", progress=False)
    assert not list(tmp_path.glob("wrong*"))


def test_a_prompt_file_names_classes(tmp_path: Path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"templates": ["a {}"], "names": {"3": "drei"}}))
    data = FewShotData("digits", templates=str(path), shots=2)
    data.setup()
    assert data.prompts.texts[3] == ("a drei",)


def test_a_run_knows_its_texts_whatever_becomes_of_the_prompt_file(tmp_path: Path):
    path = tmp_path / "prompts.yaml"
    path.write_text(json.dumps({"templates": ["a {}"], "names": {"3": "drei"}}))
    main = {"name": "fewshot", "templates": str(path)}
    compare = [{"label": "zero-shot", "method": {"name": "frozen"}, "task": {"templates": str(path)}}]
    first = load_recipe(recipe(tmp_path, task=main, compare=compare))
    path.write_text(json.dumps({"templates": ["the digit {}"]}))
    assert load_recipe(recipe(tmp_path, task=main, compare=compare)).digest != first.digest
    path.unlink()
    for entry in entries(load_recipe(first.content())):
        assert build(entry.recipe, Draw(0)).data.prompts.texts[3] == ("a drei",)


def test_a_run_on_one_half_predicts_though_its_prompt_file_names_the_other(tmp_path: Path):
    path, card = tmp_path / "prompts.yaml", pictures(tmp_path / "numbers", classes=(3, 5, 7, 8))
    path.write_text(json.dumps({"names": {"number 8": "eight"}}))
    data = {"card": str(card), "shots": 2, "val_shots": 1, "batch_size": 4, "augment": "none", "classes": "base"}
    task, trainer = {"name": "fewshot", "templates": str(path)}, {"max_steps": 1, "accelerator": "cpu"}
    result = run(recipe(tmp_path, data=data, task=task, trainer=trainer), output=tmp_path / "half", progress=False)
    path.unlink()
    found = CliRunner().invoke(app, ["predict", str(result.folder), str(card), "--json"])
    assert found.exit_code == 0, found.output


def test_a_folder_can_be_the_other_data_set(tmp_path: Path):
    data = FewShotData("digits", shots=2, forgetting=[str(pictures(tmp_path / "numbers"))])
    data.setup()
    assert [other.name for other in data.elsewhere] == ["numbers"]
    assert data.elsewhere[0].data.prompts.classes == ("number 3", "number 7")
