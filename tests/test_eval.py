"""``visionpeft eval``: a run on another data set, and masks from anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from PIL import Image
from test_cli import call
from tiny import finished as finished_labels
from tinyseg import discs, finished, pictures_card


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    return lambda *words: call(capsys, monkeypatch, *map(str, words))


def test_eval_repeats_the_figure_of_a_segmentation_run(cli):
    found = json.loads(cli("eval", finished(2).folder, "--json")[1])
    assert found["dice"]["value"] == pytest.approx(finished(2).main.value)
    assert "dice" in cli("eval", finished(2).folder, "--part", "all")[1]


def test_a_run_on_another_data_set(cli, tmp_path: Path):
    other = pictures_card(tmp_path / "other", "elsewhere", seed=5)
    code, printed, _ = cli("eval", finished(2).folder, "--data", other, "--part", "all", "--json")
    assert code == 0 and json.loads(printed)["dice"]["value"] > 0.7
    assert printed != cli("eval", finished(2).folder, "--part", "all", "--json")[1]


def test_a_data_set_of_other_classes_is_refused(cli, tmp_path: Path):
    other = pictures_card(tmp_path, "cells", classes=("rest", "cell"))
    code, _, errors = cli("eval", finished(2).folder, "--data", other)
    assert code == 2 and "has the classes rest, cell" in errors and "knows rest, disc" in errors
    code, _, errors = cli("eval", finished_labels().folder, "--data", "digitts")
    assert code == 2 and "Did you mean 'digits'" in errors


def test_a_classification_run_on_a_named_data_set(cli):
    code, printed, _ = cli("eval", finished_labels().folder, "--data", "digits", "--part", "val", "--json")
    assert code == 0 and 0 <= json.loads(printed)["top1"]["value"] <= 1


def masks(folder: Path, names: str = "abc") -> tuple[Path, Path]:
    """Folders of equal names: ``a`` is right, ``b`` is half right, ``c`` is empty."""
    for place, name in enumerate(names):
        truth = discs(40, seed=place)[1]
        guess = [truth, truth.copy(), np.zeros_like(truth)][place]
        guess[:20] *= place == 0
        for part, mask in (("pred", guess), ("label", truth)):
            (folder / part).mkdir(exist_ok=True)
            Image.fromarray(mask).save(folder / part / f"{name}.png")
    return folder / "pred", folder / "label"


def test_masks_from_anywhere(cli, tmp_path: Path):
    pred, label = masks(tmp_path)
    code, printed, _ = cli("eval", "--pred", pred, "--label", label, "--classes", "rest,disc", "--json")
    found = json.loads(printed)
    first, _, last = [case["classes"]["disc"] for case in found["cases"]]
    assert code == 0 and first["dice"] == 1 and first["hd95"] == 0 and last["dice"] == 0
    assert set(found["by_volume"]) == {"small", "medium", "large"}
    low, mean, high = (found["summary"]["dice"][key] for key in ("low", "value", "high"))
    assert low < mean < high
    assert "disc" in cli("eval", "--pred", pred, "--label", label, "--classes", "rest,disc")[1]
    assert "class 1" in cli("eval", "--pred", pred, "--label", label)[1]


def test_volumes_are_scored_in_millimetres(cli, tmp_path: Path):
    truth = np.zeros((12, 12, 12), np.uint8)
    truth[4:8, 4:8, 4:8] = 1
    for part, mask in (("pred", np.roll(truth, 1, 2)), ("label", truth)):
        (tmp_path / part).mkdir()
        nibabel.save(Nifti1Image(mask, np.diag([1, 1, 3, 1.0])), tmp_path / part / "v.nii.gz")
    found = json.loads(cli("eval", "--pred", tmp_path / "pred", "--label", tmp_path / "label", "--json")[1])
    figures = found["cases"][0]["classes"]["class 1"]
    assert figures["hd95"] == pytest.approx(3) and figures["volume"] == pytest.approx(64 * 3 / 1000)


def test_masks_that_do_not_match_are_named(cli, tmp_path: Path):
    def mistake(change) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        pred, label = masks(folder)
        change(pred)
        code, printed, errors = cli("eval", "--pred", pred, "--label", label, "--classes", "rest,disc")
        assert code == 2 and not printed and "Traceback" not in errors
        return errors

    def save(values: np.ndarray):
        return lambda pred: Image.fromarray(values).save(pred / "b.png")

    assert "a has no mask of that name" in mistake(lambda pred: (pred / "a.png").unlink())
    assert "b.png has shape (30, 40), but its label" in mistake(save(np.zeros((30, 40), np.uint8)))
    assert "b.png holds the values [7]" in mistake(save(np.full((40, 40), 7, np.uint8)))
    coloured = np.random.default_rng(0).integers(0, 2, (40, 40, 3), np.uint8)
    assert "b.png has 3 channels" in mistake(save(coloured))
    assert "holds no mask" in mistake(lambda pred: [path.unlink() for path in pred.iterdir()])


def test_volumes_with_fractions_or_in_another_place_are_named(cli, tmp_path: Path):
    mask = np.zeros((6, 6, 6), np.float32)
    mask[2:4, 2:4, 2:4] = 1
    for part in ("pred", "label"):
        (tmp_path / part).mkdir()
        nibabel.save(Nifti1Image(mask, np.eye(4)), tmp_path / part / "v.nii")
    words = ("eval", "--pred", tmp_path / "pred", "--label", tmp_path / "label")
    assert cli(*words)[0] == 0, "floats that are whole numbers are labels"
    nibabel.save(Nifti1Image(mask / 2, np.eye(4)), tmp_path / "pred" / "v.nii")
    assert "holds fractions such as 0.5" in cli(*words)[2]
    nibabel.save(Nifti1Image(mask, np.diag([1, 1, 2, 1.0])), tmp_path / "pred" / "v.nii")
    assert "lies elsewhere than its label" in cli(*words)[2]


def test_a_run_and_folders_do_not_go_together(cli, tmp_path: Path):
    for words in (
        (finished(2).folder, "--pred", tmp_path),
        ("--pred", tmp_path),
        (),
        ("--pred", ".", "--label", ".", "--seed", "0"),
    ):
        code, _, errors = cli("eval", *words)
        assert code == 2 and "give a run" in errors
