"""Segmentation data: real cases from packages, crops that depend on nothing but (seed, epoch, case), folds by group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from visionpeft.backbones.spec import InputSpec
from visionpeft.data.cards import load_card
from visionpeft.data.open import open_card
from visionpeft.data.segmentation.cards import Intensity
from visionpeft.data.segmentation.intensity import for_network, normalise
from visionpeft.data.segmentation.module import SegmentationData
from visionpeft.data.segmentation.open import open_segmentation
from visionpeft.data.segmentation.parts import deal
from visionpeft.data.tables import PARTS
from visionpeft.errors import DataError, OptionError, UnknownNameError


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Ten grey pictures of 40×48 with a bright square each; five patients with two pictures."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    for number in range(10):
        picture, mask = rng.integers(0, 100, (40, 48), np.uint8), np.zeros((40, 48), np.uint8)
        top, left = rng.integers(0, 24, 2)
        picture[top : top + 12, left : left + 12] += 120
        mask[top : top + 12, left : left + 12] = 255
        name = f"p{number // 2}-{number}.png"
        Image.fromarray(picture).save(tmp_path / "images" / name)
        Image.fromarray(mask).save(tmp_path / "masks" / name)
    return tmp_path


def with_groups(folder: Path):
    card = load_card(folder)
    reader = card.reader.model_copy(update={"group": r"(p\d+)-"})
    return card.model_copy(update={"reader": reader})


def test_a_folder_of_pairs_is_a_data_set(shapes: Path) -> None:
    table = open_segmentation(shapes)
    assert (table.classes, table.axes, table.channels, len(table)) == (("background", "object"), 2, 3, 10)
    case = table.case(0)
    assert case.image.shape == (3, 40, 48)
    assert case.image.dtype == np.float32
    assert case.mask.dtype == np.int64
    assert case.mask.sum() == 144, "255 is the class 'object'"
    assert case.image[:, case.mask == 1].mean() > case.image[:, case.mask == 0].mean() + 0.3
    assert table.case(0) is case, "a case is decoded once"


def test_a_patient_is_in_one_part(shapes: Path) -> None:
    table = open_segmentation(with_groups(shapes))
    parts = {part: {table.groups[i] for i in table.indices(part)} for part in PARTS}
    assert parts["train"] | parts["val"] | parts["test"] == {f"p{n}" for n in range(5)}
    assert sum(map(len, parts.values())) == 5


def test_a_crop_depends_on_seed_epoch_and_case_alone(shapes: Path) -> None:
    def epochs(seed: int, workers: int = 0) -> list[torch.Tensor]:
        data = SegmentationData(shapes, patch_size=16, batch_size=2, seed=seed, workers=workers)
        data.setup()
        loader = data.train_dataloader()
        return [torch.cat([images.flatten(), masks.flatten()]) for _ in range(2) for images, masks in loader]

    first, again, other = epochs(0), epochs(0), epochs(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0], first[len(first) // 2]), "each epoch has its own crops"
    assert all(torch.equal(a, b) for a, b in zip(first, epochs(0, workers=1), strict=True))


def test_a_resumed_loader_goes_on_where_it_stopped(shapes: Path) -> None:
    data = SegmentationData(shapes, patch_size=16, batch_size=2)
    data.setup()
    whole = [images for images, _ in data.train_dataloader()]
    loader = data.train_dataloader()
    next(iter(loader))
    state = loader.state_dict()
    resumed = data.train_dataloader()
    resumed.load_state_dict(state)
    rest = [images for images, _ in resumed]
    assert all(torch.equal(a, b) for a, b in zip(whole[1:], rest, strict=True))


def test_crops_are_balanced_by_foreground(shapes: Path) -> None:
    def middles(foreground: float) -> float:
        data = SegmentationData(shapes, patch_size=9, batch_size=1, foreground=foreground, augment="none")
        data.setup()
        loader = data.train_dataloader()
        seen = [int(masks[0, 4, 4]) for _ in range(5) for _, masks in loader]
        return float(np.mean(seen))

    assert middles(1.0) == 1.0
    assert middles(0.0) < 0.2, "crops at the border may be moved onto an object"


def test_image_and_mask_are_moved_together(shapes: Path) -> None:
    card = load_card(shapes)
    rule = card.augment.model_copy(update={"rotate": 40.0, "turn": True, "noise": 0.0, "light": 0.0})
    data = SegmentationData(card.model_copy(update={"augment": rule}), patch_size=32, batch_size=4)
    data.setup()
    for images, masks in data.train_dataloader():
        bright = images.mean(1) > 0.42  # the noise ends at 100 of 255, the squares begin at 120
        overlap = (bright & (masks == 1)).sum() / (bright | (masks == 1)).sum()
        assert overlap > 0.8


def test_whole_cases_for_scoring(shapes: Path) -> None:
    data = SegmentationData(shapes, patch_size=16)
    data.setup()
    for part in PARTS:
        items = list(data.ordered(part))
        assert [index for *_, index in items] == list(getattr(data.split, part))
        assert all(image.shape == (1, 3, 40, 48) and mask.shape == (1, 40, 48) for image, mask, _ in items)


def test_resized_to_the_longest_side(shapes: Path) -> None:
    data = SegmentationData(shapes, input=InputSpec(size=24), batch_size=2)
    data.setup()
    images, masks = next(iter(data.train_dataloader()))
    assert images.shape == (2, 3, 24, 24)
    assert masks.shape == (2, 24, 24)
    _, mask, index = next(iter(data.test_dataloader()))
    assert mask.shape == (1, 20, 24), "the sides keep their ratio"
    assert data.spacing(index) == (2.0, 2.0)
    assert set(mask.unique().tolist()) == {0, 1}


def test_a_case_smaller_than_the_patch_is_padded(shapes: Path) -> None:
    data = SegmentationData(shapes, patch_size=(64, 32), batch_size=2, augment="none")
    data.setup()
    images, masks = next(iter(data.train_dataloader()))
    assert images.shape == (2, 3, 64, 32)
    assert masks[:, :12].sum() == 0
    assert images[:, :, :12].unique().numel() == 1, "zeros, and label background"


def test_training_pads_with_what_the_network_sees_as_zero(shapes: Path) -> None:
    """Predictions pad after mean and deviation, so training on a black frame would show another network input."""
    spec = InputSpec(size=24, mean=(0.2, 0.4, 0.6), std=(0.5, 0.25, 0.125))
    data = SegmentationData(shapes, input=spec, patch_size=(64, 32), batch_size=2, augment="none")
    data.setup()
    images, _ = next(iter(data.train_dataloader()))
    assert images[:, :, :12].count_nonzero() == 0
    assert images[:, :, 12:52].count_nonzero() > 0


def test_draws_of_cases_contain_each_other(shapes: Path) -> None:
    def train(count: int | None, seed: int = 0) -> set[int]:
        data = SegmentationData(shapes, train_cases=count, seed=seed, patch_size=16)
        data.setup()
        return set(data.split.train)

    assert len(train(2)) == 2
    assert train(2) < train(4) < train(None)
    assert {tuple(train(2, seed)) for seed in range(6)} != {tuple(train(2))}
    with pytest.raises(OptionError, match=r"train_cases is 99, but the train part has 7"):
        train(99)


def test_folds_test_every_case_once_and_divide_no_patient(shapes: Path) -> None:
    card, tested = with_groups(shapes), []
    for fold in range(3):
        data = SegmentationData(card, folds=3, fold=fold, patch_size=16)
        data.setup()
        parts = [{data.table.groups[i] for i in getattr(data.split, part)} for part in PARTS]
        assert sum(map(len, parts)) == 5 == len(set.union(*parts))
        tested += data.split.test
    assert sorted(tested) == list(range(10))
    with pytest.raises(DataError, match="9 folds need at least as many groups"):
        SegmentationData(card, folds=9, fold=0, patch_size=16).setup()


def test_folds_are_even() -> None:
    groups = ["a"] * 5 + ["b"] * 3 + ["c", "d", "e", "f"]
    assert np.bincount(deal(groups, 2, seed=0)).tolist() == [6, 6]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": (16, 16, 16)}, "2 spatial axes"),
        ({"patch_size": 4}, r"patch_size\[0\] is 4"),
        ({"foreground": 1.5}, "probability"),
        ({"folds": 3}, "go together"),
        ({"folds": 3, "fold": 3}, "must be below 3"),
        ({"augment": "standart"}, "Did you mean 'standard'"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_wrong_options_are_named(shapes: Path, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SegmentationData(shapes, **options)


def test_a_card_of_the_other_task_is_refused(shapes: Path) -> None:
    with pytest.raises(DataError, match="has labels but no masks"):
        open_segmentation("digits")
    with pytest.raises(DataError, match="holds masks"):
        open_card(shapes)
    with pytest.raises(UnknownNameError, match="Did you mean 'nuclei'"):
        open_segmentation("nuclie")


def test_unknown_key_of_a_segmentation_card(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "datasets" / "nuclei.yaml").read_text()
    (tmp_path / "card.yaml").write_text(text.replace("tile: 64", "tiles: 64"))
    with pytest.raises(DataError, match=r"unknown key 'reader\.tiles\.tiles'.*Did you mean 'tile'"):
        load_card(tmp_path / "card.yaml")


def test_intensities() -> None:
    raw = np.array([[0.0, 10.0, 20.0, 30.0]])
    scored = normalise(raw, Intensity(kind="zscore"))
    assert scored[0, 0] == 0
    assert abs(scored[0, 1:].mean()) < 1e-6
    assert abs(scored[0, 1:].std() - 1) < 1e-6
    assert normalise(raw, Intensity(kind="ct", window=(0, 20))).tolist() == [[0, 0.5, 1, 1]]
    assert normalise(np.array([[0, 255]], np.uint8), Intensity(kind="picture")).tolist() == [[0, 1]]
    assert normalise(np.zeros((1, 4)), Intensity(kind="zscore")).tolist() == [[0, 0, 0, 0]]
    grey = torch.full((1, 1, 2, 2), 0.75)
    assert for_network(grey, Intensity(kind="unit"), InputSpec(2)).unique().tolist() == [0.5]
    with pytest.raises(DataError, match="2 channels, but the backbone takes 3"):
        for_network(torch.zeros(1, 2, 4, 4), Intensity(kind="unit"), InputSpec(4))
