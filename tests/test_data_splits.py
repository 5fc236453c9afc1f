"""Splits and few-shot draws: fixed by keys and seeds, honest about small classes, protected by a hash."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from visionpeft.data.splits import Split, divide, few_shot, hashed_order, load_split, save_split, split_digest
from visionpeft.errors import DataError, OptionError

LABELS = np.repeat(np.arange(4), [10, 20, 30, 7])


def test_every_class_gives_its_shots() -> None:
    chosen = few_shot(LABELS, 5, seed=0)
    assert np.bincount(LABELS[chosen]).tolist() == [5, 5, 5, 5]
    assert len(set(chosen)) == 20


def test_a_draw_depends_on_the_seed_alone() -> None:
    assert few_shot(LABELS, 5, seed=3).tolist() == few_shot(LABELS, 5, seed=3).tolist()
    assert few_shot(LABELS, 5, seed=3).tolist() != few_shot(LABELS, 5, seed=4).tolist()


def test_the_draw_is_the_same_in_every_version() -> None:
    """The numbers themselves: a change here would silently change every published figure."""
    assert hashed_order(range(8), seed=0).tolist() == [3, 7, 5, 4, 2, 6, 0, 1]


def test_small_draws_lie_inside_larger_ones() -> None:
    small, large = few_shot(LABELS, 2, seed=1), few_shot(LABELS, 7, seed=1)
    assert set(small) < set(large)


def test_draws_stay_within_their_pool() -> None:
    pool = np.arange(0, len(LABELS), 2)
    assert set(few_shot(LABELS, 3, seed=0, within=pool)) <= set(pool)


def test_too_few_images_names_the_class_and_the_counts() -> None:
    with pytest.raises(DataError, match=r"class 'eel' has 7 image\(s\) in the data, fewer than the 8 shots"):
        few_shot(LABELS, 8, seed=0, classes=["ant", "bee", "cat", "eel"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 0, 2, 2], "no image of class '1'"),
        ([0, 0, 0], "all 3 images belong to class '0'"),
        ([1], "found 1 image"),
    ],
)
def test_degenerate_labels(labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        few_shot(np.array(labels), 1, seed=0)


def test_shots_must_be_positive() -> None:
    with pytest.raises(OptionError, match="shots is 0"):
        few_shot(LABELS, 0, seed=0)


def test_divide_is_stratified_and_order_free() -> None:
    keys = [f"k{i}" for i in range(len(LABELS))]
    parts = divide(keys, LABELS, "abcd", test=0.3, val=0.1)
    for label, count in enumerate([10, 20, 30, 7]):
        mine = parts[label == LABELS]
        assert (mine == "test").sum() == round(0.3 * count)
        assert (mine == "val").sum() == max(1, round(0.1 * count))
    shuffle = np.random.default_rng(0).permutation(len(LABELS))
    again = divide([keys[i] for i in shuffle], LABELS[shuffle], "abcd", test=0.3, val=0.1)
    assert (again == parts[shuffle]).all()
    assert split_digest(keys, LABELS, parts) == split_digest([keys[i] for i in shuffle], LABELS[shuffle], again)


def test_the_digest_sees_a_swapped_label() -> None:
    parts = np.array(["train", "test"])
    assert split_digest(["a", "b"], np.array([0, 1]), parts) != split_digest(["a", "b"], np.array([1, 0]), parts)


SPLIT = Split(card="digits", seed=1, shots=2, train=(1, 2), val=(3,), test=(4, 5))


def test_a_saved_split_comes_back(tmp_path: Path) -> None:
    assert load_split(save_split(tmp_path / "split.json", SPLIT)) == SPLIT


def test_a_tampered_split_is_refused(tmp_path: Path) -> None:
    path = save_split(tmp_path / "split.json", SPLIT)
    content = json.loads(path.read_text())
    content["test"].append(1)
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="was changed after it was written"):
        load_split(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"card": "x"}', '{"sha256": "1", "colour": 2}'])
def test_a_file_that_is_no_split(tmp_path: Path, text: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(DataError, match="is not a split file"):
        load_split(path)
