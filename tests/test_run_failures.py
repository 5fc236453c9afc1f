"""A run that cannot be done says why, and leaves nothing half-written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import finished, recipe

from visionpeft.errors import DataError, OptionError, StateError, TargetError, UserError
from visionpeft.pipeline import run
from visionpeft.recipe import load_recipe
from visionpeft.runs import folder as folders
from visionpeft.runs.kinds import Draw
from visionpeft.runs.stages import open_backbone
from visionpeft.runs.trial import TrialSpec


def refused(tmp_path: Path, error: type[UserError], message: str, **changes: object) -> None:
    with pytest.raises(error, match=message):
        run(recipe(**changes), output=tmp_path / "run", progress=False)
    assert not list(tmp_path.glob("run*")), "nothing half-written"


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path):
    state = open_backbone(load_recipe(recipe()), 10).model.state_dict()
    state["head.weight"].fill_(3e38)  # finite, but logits overflow
    save_file(state, tmp_path / "weights.safetensors")
    weights = {"pretrained": str(tmp_path / "weights.safetensors")}
    refused(tmp_path, StateError, "loss became (nan|inf) at step 0.*lower trainer.lr", backbone=weights)


def test_nan_in_the_weights_is_named(tmp_path: Path):
    state = open_backbone(load_recipe(recipe()), 10).model.state_dict()
    state["blocks.0.mlp.fc1.weight"][0, 0] = torch.nan
    save_file(state, tmp_path / "weights.safetensors")
    refused(
        tmp_path,
        UserError,
        "blocks.0.mlp.fc1.weight holds 1",
        backbone={"pretrained": str(tmp_path / "weights.safetensors")},
    )


def test_an_unknown_target_of_the_last_entry_is_found_before_any_training(tmp_path: Path):
    entry = {"label": "typo", "method": {"name": "lora"}, "targets": ["atn.qkv"]}
    refused(tmp_path, TargetError, "'atn.qkv'.*matches no.*attn.qkv", compare=[entry])


def test_an_unknown_module_to_train_also(tmp_path: Path):
    refused(tmp_path, TargetError, "train_also: 'haed'.*head", train_also=["haed"])


def test_an_unknown_data_set(tmp_path: Path):
    refused(tmp_path, UserError, "unknown data set 'digit'. Did you mean 'digits'", data={"card": "digit"})


def test_more_shots_than_images(tmp_path: Path):
    refused(tmp_path, DataError, "fewer than the 500 shots", data={"shots": 500})


def test_a_constructor_option_the_network_does_not_have(tmp_path: Path):
    refused(tmp_path, OptionError, "dpth", backbone={"options": {"dpth": 3}})


def test_a_constructor_option_that_is_a_key_of_the_section(tmp_path: Path):
    refused(tmp_path, OptionError, "set it as backbone.pretrained", backbone={"options": {"pretrained": True}})


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
@pytest.mark.parametrize(
    ("trainer", "message"),
    [({"accelerator": "cuda"}, "trainer: .*"), ({"precision": "16-mixed"}, "trainer.precision: 16-mixed needs a GPU")],
)
def test_a_cuda_only_option_on_a_cpu(tmp_path: Path, trainer: dict, message: str):
    refused(tmp_path, OptionError, message, trainer=trainer)


def test_a_full_disk_is_named_and_the_run_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import visionpeft.runs.trial as trial

    def full(path: Path, state: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(trial, "write_weights", full)
    with pytest.raises(UserError, match="the disk is full") as caught:
        run(recipe(), output=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    assert f"visionpeft run --resume {tmp_path / 'run.partial'}" in "".join(caught.value.__notes__)
    monkeypatch.undo()
    assert run(tmp_path / "run.partial", resume=True, progress=False).folder == tmp_path / "run"


def test_an_existing_output_is_not_overwritten(tmp_path: Path):
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match=r"run exists already"):
        run(recipe(), output=tmp_path / "run", progress=False)


def test_resuming_with_another_recipe_names_what_differs(tmp_path: Path):
    folder = folders.new_run(load_recipe(recipe()), tmp_path / "run")
    with pytest.raises(UserError, match=r"another recipe \(differs in method, seeds\)"):
        run(recipe(seeds=[3], method={"name": "lora", "rank": 3}), output=tmp_path / "run", resume=True, progress=False)
    assert folder.exists()


def test_two_processes_cannot_share_a_folder(tmp_path: Path):
    folder = folders.new_run(load_recipe(recipe()), tmp_path / "run")
    with folders.locked(folder), pytest.raises(UserError, match="another process"), folders.locked(folder):
        pass


def test_a_finished_run_is_returned_by_resume_and_refused_otherwise():
    folder = finished().folder
    assert run(folder, resume=True, progress=False) == finished()
    with pytest.raises(UserError, match="is a run folder: continue it with --resume"):
        run(folder, progress=False)


def test_the_name_of_a_run_is_numbered_when_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    made = [folders.new_run(load_recipe(recipe()), None) for _ in range(3)]
    assert [path.as_posix() for path in made] == ["runs/tiny.partial", "runs/tiny-2.partial", "runs/tiny-3.partial"]
    assert folders.find_partial(load_recipe(recipe()), None) == made[0]


def test_trials_of_two_rates_and_seeds_do_not_share_a_folder(tmp_path: Path):
    from visionpeft.recipe import entries

    entry = entries(load_recipe(recipe()))[0]
    specs = [TrialSpec(entry, Draw(seed), lr, tmp_path).folder for seed in (0, 1) for lr in (0.001, 0.0012)]
    assert len(set(specs)) == 4
