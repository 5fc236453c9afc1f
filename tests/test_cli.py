"""The command line: every command answers, says how it is called, and prints what it found."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from tiny import finished, recipe

from visionpeft.cli import main
from visionpeft.recipe.yaml import dump

COMMANDS = (
    *("run", "predict", "eval", "export", "show", "methods", "recipes", "datasets", "merge", "report", "doctor"),
    *("sample", "demo", "convert", "formats"),
)


def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of ``visionpeft words…`` in this process."""
    monkeypatch.setattr(sys, "argv", ["visionpeft", *words])
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    printed = capsys.readouterr()
    assert isinstance(code, int)
    return code, printed.out, printed.err


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    return lambda *words: call(capsys, monkeypatch, *words)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(cli, command: str):
    code, out, _ = cli(command, "--help")
    assert code == 0 and "Usage:" in out and f"Example: visionpeft {command}" in out


def test_root_help_lists_every_command(cli):
    _, out, _ = cli("--help")
    assert all(f"\n  {command} " in out for command in (*COMMANDS, "bench"))


def test_version(cli):
    from visionpeft import __version__

    assert cli("--version")[:2] == (0, f"visionpeft {__version__}\n")


def test_a_run_prints_its_table_and_paths(cli, tmp_path: Path):
    source = tmp_path / "mine.yaml"
    source.write_text(dump(recipe(baselines=["nearest_centroid"])))
    code, out, _ = cli("run", str(source), "--set", "method.rank=3", "-o", str(tmp_path / "run"), "--quiet")
    assert code == 0
    assert "nearest centroid" in out and "95 % interval" in out and "parity" in out
    for name in ("report.html", "adapter", "merged.safetensors"):
        assert str(tmp_path / "run" / name) in out and (tmp_path / "run" / name).exists()


def test_eval_repeats_the_figure_of_the_run(cli):
    code, out, _ = cli("eval", str(finished().folder), "--seed", "1", "--json")
    assert code == 0
    assert json.loads(out)["top1"]["value"] == pytest.approx(finished().main.by_seed[1])


def test_eval_of_another_entry_and_split(cli):
    code, out, _ = cli("eval", str(finished().folder), "--entry", "head only", "--part", "val")
    assert code == 0 and "head only, seed 0, val split" in out and "top1" in out


def test_show_says_what_is_adapted_and_what_is_refused_and_why(cli):
    code, out, _ = cli("show", "--backbone", "timm/resnet18", "--method", "cp_lora", "-O", "rank=4", "-t", "conv.3x3")
    assert code == 0
    assert "layer1.0.conv1" in out and "64×64×3×3" in out
    assert "adapt and merge exactly" in out


def test_show_of_a_block_method_says_that_it_is_not_merged(cli):
    code, out, _ = cli("show", "--backbone", "timm/vit_tiny_patch16_224", "--method", "adaptertune", "-O", "rank=16")
    assert code == 0
    assert "76,224 adapter parameters" in out and "not merged" in out


def test_methods_are_listed_and_explained(cli):
    assert "block_lora" in cli("methods")[1]
    code, out, _ = cli("methods", "salt")
    assert code == 0 and "SALT" in out and "rectify" in out


def test_data_sets_are_listed_shown_and_counted(cli):
    assert "digits" in cli("datasets", "list")[1]
    assert "licence:" in cli("datasets", "show", "digits")[1]
    code, out, _ = cli("datasets", "check", "digits")
    assert code == 0 and "1,797 images" in out


def test_recipes_are_shown_as_they_will_run(cli, tmp_path: Path):
    source = tmp_path / "mine.yaml"
    source.write_text(dump(recipe()))
    assert cli("recipes", "show", str(source))[1] == source.read_text()
    code, out, _ = cli("recipes", "show", str(source), "--set", "method.rank=7")
    assert code == 0 and "rank: 7" in out and "schedule: cosine" in out


def test_the_schema_is_json(cli):
    assert json.loads(cli("recipes", "schema")[1])["title"] == "Recipe"


def test_doctor_names_versions_and_the_attention(cli):
    code, out, _ = cli("doctor")
    assert code == 0 and version("torch") in out and "scaled_dot_product_attention" in out and "cache" in out


def test_python_dash_m_runs_the_same_command():
    done = subprocess.run([sys.executable, "-P", "-m", "visionpeft", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("visionpeft ")
