"""Runs of other shapes: trained norms, several processes, loggers."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import recipe

import visionpeft as vp
from visionpeft.errors import UserError
from visionpeft.pipeline import run
from visionpeft.recipe.yaml import dump
from visionpeft.runs.finished import open_run
from visionpeft.runs.result import RunResult
from visionpeft.runs.stages import open_backbone, seeded

RESNET = {"name": "timm/test_resnet", "image_size": 32, "options": {}}


@pytest.mark.parametrize("train", [True, False])
def test_batch_norms_move_only_when_they_are_trained(tmp_path: Path, train: bool):
    data = recipe(backbone=RESNET, targets=["conv"], norm={"train": train}, task={"mixup": 0.0})
    made = run(data, output=tmp_path / "run", progress=False)
    opened = open_run(made.folder)
    with seeded(0):
        plain = open_backbone(opened.recipe, 10).model
    assert made.merged is not None
    before, after = plain.state_dict(), load_file(made.merged)
    moved = {key.rpartition(".")[2] for key in before if "bn" in key and not torch.equal(before[key], after[key])}
    expected = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"} if train else set()
    assert moved == expected

    vp.load(plain, made.folder / "adapter")
    images = next(iter(opened.stages.data.test_dataloader()))[0]
    with torch.inference_mode():
        assert torch.equal(plain.eval()(images), opened.stages.task.model.eval()(images)), "the folder holds them too"


@pytest.mark.slow
def test_two_processes_train_one_run(tmp_path: Path):
    source = tmp_path / "recipe.yaml"
    source.write_text(dump(recipe(trainer={"devices": 2, "strategy": "ddp"}, seeds=[0, 1])))
    command = [sys.executable, "-P", "-m", "visionpeft", "run", str(source), "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["tiny"], (
        "the second process made no run of its own"
    )
    made = RunResult.load(tmp_path / "runs/tiny")
    assert [trial.steps for trial in made.trials] == [12, 12] and len(made.main.by_seed) == 2


def test_loggers_write_into_the_run_folder(tmp_path: Path):
    data = recipe(logging={"csv": True, "tensorboard": True}, trainer={"log_every_n_steps": 2})
    folder = run(data, output=tmp_path / "run", progress=False).folder
    lines = next((folder / "trials").rglob("metrics.csv")).read_text().splitlines()
    assert "train/loss" in lines[0] and "val/top1" in lines[0] and len(lines) > 6
    assert list((folder / "logs").rglob("events.out.tfevents.*"))


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_wandb_is_asked_for_but_not_installed(tmp_path: Path):
    with pytest.raises(UserError, match=r"pip install 'visionpeft\[wandb\]'"):
        run(recipe(logging={"wandb": True}), output=tmp_path / "run", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_progress_line_shows_loss_and_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(recipe(), output=tmp_path / "run", progress=True)
    printed = capsys.readouterr()
    assert "12/12" in printed.err and "loss" in printed.err and "val top-1" in printed.err
    assert printed.out == "", "the result is the caller's to print"
