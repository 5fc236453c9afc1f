"""From a card to a table: real data that is always there, folders of pictures, and data that is wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from visionpeft.data.cards import Card, load_card
from visionpeft.data.open import classification_card, open_card
from visionpeft.data.sources import FolderSource
from visionpeft.data.specs import FolderReader
from visionpeft.data.tables import PARTS, decode
from visionpeft.errors import DataError, UnknownNameError


def at(card: Card, folder: Path) -> Card:
    """The card with ``folder`` as its only source."""
    return card.model_copy(update={"sources": (FolderSource(kind="folder", path=str(folder)),)})


def picture(path: Path, seed: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), np.uint8)
    Image.fromarray(pixels, "RGBA").convert(mode).save(path)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for number in range(10):
        picture(tmp_path / "pets" / "cat" / f"{number}.png", number)
        picture(tmp_path / "pets" / "dog" / "deep" / f"{number}.jpg", 100 + number)
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not a picture")
    return tmp_path / "pets"


@pytest.mark.parametrize(("name", "count", "side"), [("digits", 1797, 8), ("mnist", 5000, 28)])
def test_real_data_from_pip(name: str, count: int, side: int) -> None:
    table = open_card(name)
    assert len(table) == count
    assert table.picture(0).shape == (side, side, 1)
    assert np.asarray(table.images).max() == 255
    parts = [set(table.indices(part)) for part in PARTS]
    assert sum(map(len, parts)) == count == len(set.union(*parts)), "each image is in exactly one split"
    for part in PARTS:
        assert set(table.labels[table.indices(part)]) == set(range(10))


def test_mnist_shows_what_its_labels_say() -> None:
    """Ones are thin and noughts are hollow: a shuffled label column would not pass."""
    table = open_card("mnist")
    ink = np.asarray(table.images).astype(float)
    ones, noughts = ink[table.labels == 1], ink[table.labels == 0]
    assert ones.mean() < 0.6 * noughts.mean()
    centre = slice(12, 16)
    assert noughts[:, centre, centre].mean() < 0.25 * ones[:, centre, centre].mean()


def test_unknown_split_name() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown split 'tests'.*'test'"):
        open_card("digits").indices("tests")


def test_another_split_than_the_pinned_one_is_refused() -> None:
    card = load_card("digits")
    other = card.model_copy(update={"split": card.split.model_copy(update={"seed": 1})})
    with pytest.raises(DataError, match="the card pins"):
        open_card(other)


def test_changed_content_is_refused(tmp_path: Path) -> None:
    rows = "\n".join(",".join(["0"] * 64 + [str(label)]) for label in range(10))
    (tmp_path / "digits.csv").write_text(rows)
    with pytest.raises(DataError, match="has sha256"):
        open_card(at(load_card("digits"), tmp_path))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    card = at(load_card("digits"), tmp_path)
    (tmp_path / "digits.csv.gz").write_bytes(gzip.compress(b"1,2,3")[:-4])
    with pytest.raises(DataError, match=r"cannot read digits\.csv"):
        open_card(card)
    (tmp_path / "digits.csv").write_text("1,2,3\n")
    with pytest.raises(DataError, match="not rows of 8×8 pixels and a label"):
        open_card(card.model_copy(update={"files": {}}))


def test_truncated_idx_file(tmp_path: Path) -> None:
    (tmp_path / "train-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 9]) + b"abc")
    card = load_card("fashion-mnist").model_copy(update={"files": {}})
    with pytest.raises(DataError, match=r"holds 3 bytes, but its header says \[9\]"):
        open_card(at(card, tmp_path))


def test_a_folder_of_pictures(pets: Path) -> None:
    table = open_card(pets)
    assert table.classes == ("cat", "dog")
    assert np.bincount(table.labels).tolist() == [10, 10]
    assert [len(table.indices(part)) for part in PARTS] == [14, 2, 4]
    assert "dog/deep/3.jpg" in table.keys
    assert table.picture(0).shape == (10, 12, 3)


def test_an_official_test_split_is_kept(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("test", 2)):
        for name in ("a", "b"):
            for number in range(count):
                picture(tmp_path / part / name / f"{number}.png", number)
    table = open_card(tmp_path)
    assert [table.keys[i] for i in table.indices("test")] == [
        "test/a/0.png", "test/a/1.png", "test/b/0.png", "test/b/1.png",
    ]  # fmt: skip


def test_classes_from_some_folders_of_a_tree(pets: Path) -> None:
    """Several folders make a class, others are left alone, and so are files that the card leaves out."""
    for number in range(8):
        picture(pets / "wild" / "wolf" / f"{number}.png", 200 + number)
        picture(pets / "other" / f"{number}.png", 300 + number)
    picture(pets / "cat" / "0_mirror.png", 0)
    folders = {"feline": ("cat",), "canine": ("dog/deep", "wild/wolf")}
    reader = FolderReader(format="folder", folders=folders, leave_out=("*_mirror.png",))
    card = classification_card(pets).model_copy(update={"classes": tuple(folders), "reader": reader})
    table = open_card(card)
    assert np.bincount(table.labels).tolist() == [10, 18]
    assert not [key for key in table.keys if key.startswith("other") or "mirror" in key]
    gone = reader.model_copy(update={"folders": {**folders, "feline": ("lion",)}})
    with pytest.raises(DataError, match="all 18 images belong to class 'canine'"):
        open_card(card.model_copy(update={"reader": gone}))


def test_a_new_picture_moves_no_other(pets: Path) -> None:
    """A split by a shuffle would deal anew; by hashes only the counts' rounding can move a picture."""
    before = open_card(pets)
    picture(pets / "cat" / "new.png", 7)
    after = open_card(pets)
    old = dict(zip(before.keys, before.split, strict=True))
    moved = [key for key, part in zip(after.keys, after.split, strict=True) if key in old and old[key] != part]
    assert len(moved) <= 1


def test_empty_class(pets: Path) -> None:
    (pets / "eel").mkdir()
    with pytest.raises(DataError, match="no image of class 'eel'"):
        open_card(pets)


def test_class_too_small_to_divide(pets: Path) -> None:
    picture(pets / "eel" / "1.png", 1)
    with pytest.raises(DataError, match=r"class 'eel' has 1 image.*at least 3"):
        open_card(pets)


def test_one_class(tmp_path: Path) -> None:
    for number in range(5):
        picture(tmp_path / "cat" / f"{number}.png", number)
    with pytest.raises(DataError, match="all 5 images belong to class 'cat'"):
        open_card(tmp_path)


def test_one_image_and_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found 0 image"):
        open_card(tmp_path)
    picture(tmp_path / "cat" / "1.png", 1)
    with pytest.raises(DataError, match="found 1 image"):
        open_card(tmp_path)


def test_folder_that_is_no_class(pets: Path) -> None:
    card = load_card(pets).model_copy(update={"classes": ("cat", "hound")})
    with pytest.raises(DataError, match="folder 'dog' is no class of the card"):
        open_card(card)


@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_unreadable_image_is_named(tmp_path: Path, damage: str) -> None:
    path = picture(tmp_path / "a.png", 0, size=(64, 64))
    path.write_bytes({"empty": b"", "text": b"hello", "cut": path.read_bytes()[:900]}[damage])
    with pytest.raises(DataError, match=r"cannot read the image .*a\.png"):
        decode(path)


def test_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the image .*gone\.png"):
        decode(tmp_path / "gone.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (12_000, 12_000)).save(path)
    with pytest.raises(DataError, match=r"bomb\.png.*(pixels|bomb)"):
        decode(path)


@pytest.mark.parametrize(("mode", "axes"), [("L", 2), ("LA", 3), ("P", 3), ("RGBA", 3), ("RGB", 3), ("CMYK", 3)])
def test_every_mode_becomes_grey_or_colour(tmp_path: Path, mode: str, axes: int) -> None:
    path = picture(tmp_path / ("a.tiff" if mode == "CMYK" else "a.png"), 0, mode=mode)
    found = decode(path)
    assert found.ndim == axes
    assert found.dtype == np.uint8
    assert axes == 2 or found.shape[-1] == 3


def test_transparency_is_drawn_on_white(tmp_path: Path) -> None:
    path = tmp_path / "clear.png"
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(path)
    assert decode(path).min() == 255


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(decode(tmp_path / name), values // 256)


def test_values_without_a_range_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "heights.tif")
    with pytest.raises(DataError, match=r"heights\.tif: its values have 32 bits"):
        decode(tmp_path / "heights.tif")
