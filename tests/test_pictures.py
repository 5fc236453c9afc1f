"""Pictures for generative models: what is read from packages and folders, and which part it lands in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from visionpeft.data.cards import Card, load_card, parse_card
from visionpeft.data.pictures.cards import PicturesCard
from visionpeft.data.pictures.emoji import kin
from visionpeft.data.pictures.module import PictureData
from visionpeft.data.pictures.open import open_pictures, pictures_card
from visionpeft.errors import DataError, OptionError
from visionpeft.runs.kinds.samples import measures_of, pictures_at

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 12, 8, 3), np.uint8)


def draw(folder: Path, *names: str) -> Path:
    """A different picture for each name."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[number]).save(folder / name)
    return folder


def emoji(folder: Path, vendor: str, codes: list[str]) -> Path:
    """A folder as ``emoji-datasource`` has it."""
    draw(folder, *(f"img/{vendor}/64/{code.lower()}.png" for code in codes))
    entries = [
        {
            "unified": code,
            "image": f"{code.lower()}.png",
            "name": f"NAME {code}",
            "short_names": [f"short_{code}"],
            "subcategory": "odd" if number % 2 else "even",
            "sort_order": number,
            f"has_img_{vendor}": True,
        }
        for number, code in enumerate(codes)
    ]
    (folder / "emoji.json").write_text(json.dumps(entries))
    return folder


def card(folder: Path, reader: dict[str, Any], **changes: Any) -> PicturesCard:
    source = {"kind": "folder", "path": str(folder)}
    files = {"name": "own", "title": "Own", "homepage": "-", "sources": [source]}
    about = {"licence": "-", "attribution": "-"}
    content = {
        "name": "drawn",
        "title": "Drawn",
        "task": "pictures",
        "homepage": "-",
        **about,
        "collections": [{"reader": reader, "images": files, **about}],
        "pictures": {"size": 16},
        **changes,
    }
    found = parse_card(content, "card.yaml")
    assert isinstance(found, PicturesCard)
    return found


def test_emoji_have_names_classes_and_codes(tmp_path: Path) -> None:
    place = emoji(tmp_path, "google", ["1F600", "1F603", "1F604"])
    table = open_pictures(card(place, {"format": "emoji", "vendor": "google"}), tmp_path / "cache")
    assert table.texts[0] == ("name 1f600", "short 1F600", "name 1f600, short 1F600")
    assert table.concepts == ("1f600", "1f603", "1f604")
    assert [table.classes[label] for label in table.labels] == ["even", "odd", "even"]
    assert table.images.shape == (3, 16, 16, 3) and table.images.dtype == np.uint8


def test_a_concept_is_in_the_same_part_in_every_style_and_vendor(tmp_path: Path) -> None:
    codes = [f"1F{number:03X}" for number in range(0x300, 0x328)]
    split = {"test": 0.3, "val": 0.2}
    google = emoji(tmp_path / "google", "google", codes)
    twitter = emoji(tmp_path / "twitter", "twitter", codes[5:])
    cards = [
        card(google, {"format": "emoji", "vendor": "google"}, split=split),
        card(google, {"format": "emoji", "vendor": "google"}, split=split, style={"name": "ink"}),
        card(twitter, {"format": "emoji", "vendor": "twitter"}, split=split),
    ]
    tables = [open_pictures(one, tmp_path / "cache") for one in cards]
    parts = [dict(zip(table.concepts, table.split.tolist(), strict=True)) for table in tables]
    assert parts[0] == parts[1]
    assert parts[2] == {concept: part for concept, part in parts[0].items() if concept in parts[2]}
    assert set(parts[0].values()) == {"train", "val", "test"}
    assert not np.array_equal(tables[0].images, tables[1].images)
    drawn = [PictureData(one, train_pictures=5, cache=tmp_path / "cache") for one in cards[:2]]
    for data in drawn:
        data.setup()
    assert drawn[0].split.train == drawn[1].split.train


def test_man_woman_and_person_at_one_work_are_kin() -> None:
    assert kin("1F468-200D-1F373") == kin("1F469-200D-1F373") == kin("1F9D1-200D-1F373") == "1f373"
    assert kin("1F3C3-200D-2640-FE0F") == kin("1F3C3") == "1f3c3"
    assert kin("1F468") == "1f468" != kin("1F469")


def test_captions_beside_the_pictures(tmp_path: Path) -> None:
    draw(tmp_path, "b.png", "a.png")
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(f"picture {name}\nmore\n")
    assert open_pictures(tmp_path, tmp_path / "cache").texts == (("picture a",), ("picture b",))
    (tmp_path / "b.txt").unlink()
    with pytest.raises(DataError, match=r"1 of 2 pictures have no caption: .*b\.txt is missing"):
        open_pictures(tmp_path, tmp_path / "cache")


def test_captions_of_an_imagefolder(tmp_path: Path) -> None:
    draw(tmp_path, "train/a.png", "train/deep/b.png")
    rows = [{"file_name": "deep/b.png", "text": ["two", "zwei"]}, {"file_name": "a.png", "text": "one"}]
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert open_pictures(tmp_path, tmp_path / "cache").texts == (("one",), ("two", "zwei"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"file_name": "a.png", "text": "one"}', r"has no line for 1 of 2 pictures, such as .*b\.png"),
        ('{"file_name": "a.png"}', r"metadata\.jsonl, line 1: a line should be"),
        ("a.png,one", r"metadata\.jsonl, line 1: this is no JSON"),
        ('{"file_name": "../a.png", "text": "one"}', r"line 1: the picture '\.\./a\.png' lies outside"),
        (
            "\n".join(f'{{"file_name": "{name}.png", "text": "one"}}' for name in "abc"),
            r"the picture .*c\.png is missing",
        ),
    ],
)
def test_wrong_metadata(tmp_path: Path, lines: str, message: str) -> None:
    draw(tmp_path / "own", "a.png", "b.png")
    (tmp_path / "own" / "metadata.jsonl").write_text(lines)
    with pytest.raises(DataError, match=message):
        open_pictures(tmp_path / "own", tmp_path / "cache")


def test_names_of_folders_are_captions_and_classes(tmp_path: Path) -> None:
    draw(tmp_path, "red_house/a.png", "old-tree/deep/b.png")
    table = open_pictures(tmp_path, tmp_path / "cache")
    assert table.texts == (("deep",), ("red house",))
    assert [table.classes[label] for label in table.labels] == ["old-tree", "red_house"]


def test_only_some_of_a_folder(tmp_path: Path) -> None:
    draw(tmp_path, "birds/tux.png", "birds/owl.png", "birds/old_tux.png")
    reader = {"format": "folder", "captions": "none", "only": ["*tux.png"], "leave_out": ["birds/old_*"]}
    assert open_pictures(card(tmp_path, reader), tmp_path / "cache").concepts == ("own/birds/tux.png",)


def test_a_subject_is_measured_by_likeness_and_a_set_of_few_by_nothing(tmp_path: Path) -> None:
    data = PictureData(draw(tmp_path / "subject", *(f"{number}.png" for number in range(5))), cache=tmp_path / "cache")
    data.prepare_data()
    data.setup("fit")
    own = pictures_at(data.table, data.split.test)
    ((title, likeness),) = measures_of(data, own, torch.arange(5)).items()
    ((_, other),) = measures_of(data, torch.zeros_like(own), torch.arange(5)).items()
    assert title.startswith("likeness") and other < likeness <= 1
    assert measures_of(data, own[:0], torch.arange(0)) == {}


def test_a_denoiser_told_classes_is_asked_for_the_class_of_what_it_drew(tmp_path: Path) -> None:
    """Boxes and discs in another style: any picture of the own class will do, one of the other class will not."""
    folder = emoji(tmp_path, "google", [f"1F{number:03X}" for number in range(0x300, 0x33C)])
    places, random = np.linspace(-1, 1, 32), np.random.default_rng(0)
    for number, file in enumerate(sorted((folder / "img/google/64").iterdir())):
        across, down = places - random.uniform(-0.1, 0.1), places[:, None] - random.uniform(-0.1, 0.1)
        inside = np.hypot(across, down) < 0.6 if number % 2 else np.maximum(abs(across), abs(down)) < 0.8
        Image.fromarray(np.where(inside[..., None], random.integers(0, 200, 3), 255).astype(np.uint8)).save(file)
    reader, options = {"format": "emoji", "vendor": "google"}, {"split": {"test": 0.5}, "pictures": {"size": 32}}
    source, target = card(folder, reader, **options), card(folder, reader, style={"name": "ink"}, **options)
    data = PictureData(target, source=source, tell="class", cache=tmp_path / "cache")
    data.prepare_data()
    data.setup("fit")
    kinds = [[n for n in data.split.test if data.table.labels[n] == label] for label in (0, 1)]
    boxes, discs = (kind[: min(map(len, kinds))] for kind in kinds)
    drawn = pictures_at(data.table, boxes + discs)
    right, wrong = (measures_of(data, drawn, torch.tensor(asked)) for asked in (boxes + discs, discs + boxes))
    assert right["own class: first"] > 0.9 and wrong["own class: first"] < 0.1
    assert "own concept: first" not in right


def test_few_pictures_are_all_trained_on_and_official_parts_are_taken(tmp_path: Path) -> None:
    few = draw(tmp_path / "few", *(f"{number}.png" for number in range(5)))
    assert set(open_pictures(few, tmp_path / "cache").split) == {"train"}
    many = draw(tmp_path / "many", *(f"{number}.png" for number in range(40)))
    assert set(open_pictures(many, tmp_path / "cache").split) == {"train", "val", "test"}
    parts = draw(tmp_path / "parts", "train/a.png", "train/b.png", "test/c.png")
    assert open_pictures(parts, tmp_path / "cache").split.tolist() == ["test", "train", "train"]
    with pytest.raises(DataError, match="has no folder 'val'"):
        open_pictures(card(parts, {"format": "folder"}, split={"test": "official", "val": "official"}), tmp_path / "c")


def test_which_card_a_folder_gets(tmp_path: Path) -> None:
    assert isinstance(load_card(draw(tmp_path / "own", "a.png")), PicturesCard)
    classes = draw(tmp_path / "classes", "cat/a.png", "dog/b.png")
    assert isinstance(load_card(classes), Card)
    assert pictures_card(classes).task == "pictures"
    assert isinstance(load_card(draw(classes, "stray.png")), Card)
    with pytest.raises(DataError, match="'digits' is a card of `task: classification`; `task: pictures` is needed"):
        pictures_card("digits")


def test_a_changed_folder_is_read_anew(tmp_path: Path) -> None:
    own = draw(tmp_path / "own", "a.png")
    assert len(open_pictures(own, tmp_path / "cache")) == 1
    draw(own, "a.png", "b.png")
    assert len(open_pictures(own, tmp_path / "cache")) == 2


def test_a_copy_is_left_out(tmp_path: Path) -> None:
    own = draw(tmp_path / "own", "a.png", "b.png")
    (own / "c.png").write_bytes((own / "a.png").read_bytes())
    assert open_pictures(own, tmp_path / "cache").counts == {"found": 3, "the picture of an earlier one": 1, "kept": 2}


def test_a_pin_that_does_not_hold(tmp_path: Path) -> None:
    own = draw(tmp_path / "own", "a.png")
    with pytest.raises(DataError, match=r"its 1 pictures have sha256 [0-9a-f]{64}, but the card pins 0000"):
        open_pictures(card(own, {"format": "folder"}, split={"sha256": "0" * 64}), tmp_path / "cache")


def test_no_picture_and_a_damaged_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no picture"):
        open_pictures(card(tmp_path / "empty", {"format": "folder"}), tmp_path / "cache")
    own = draw(tmp_path / "own", "a.png", "b.png")
    (own / "b.png").write_bytes((own / "a.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"cannot read the image .*b\.png"):
        open_pictures(own, tmp_path / "cache")


def test_batches_are_positions_and_resume(tmp_path: Path) -> None:
    own = draw(tmp_path / "own", *(f"{number}.png" for number in range(12)))
    data = PictureData(own, image_size=16, batch_size=4, augment="flip", caption="in sks style", cache=tmp_path / "c")
    data.setup()
    assert data.captions == ("in sks style",) * 12
    loader = data.train_dataloader()
    batches = list(loader)
    images, positions = batches[0]
    assert images.shape == (4, 3, 16, 16) and -1 <= images.min() < 0 < images.max() <= 1
    assert sorted(int(position) for _, some in batches for position in some) == list(range(12))
    again = data.train_dataloader()
    again.load_state_dict({"epoch": 0, "batch": 1})
    assert np.array_equal(next(iter(again))[1], batches[1][1])
    assert [len(some) for some, _ in data.ordered("train")] == [4, 4, 4]
    assert data.split.test == data.split.train, "so few are all trained on, and looked at again"
    assert positions.dtype.is_floating_point is False


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"train_pictures": 9}, DataError, r"has 3 picture\(s\) in the train part, fewer than the 9 of train_pictures"),
        ({"test_pictures": 1}, DataError, r"has 0 picture\(s\) in the test part"),
        ({"train_pictures": 0}, OptionError, "train_pictures is 0"),
        ({"image_size": 4}, OptionError, "at least 8 pixels"),
        ({"augment": "flipp"}, OptionError, "Did you mean 'flip'"),
        ({"caption": "{} and {}"}, OptionError, "once"),
        ({"caption": "a photo of {}"}, DataError, "no captions to fill the template"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str) -> None:
    own = draw(tmp_path / "own", "a.png", "b.png", "c.png")
    with pytest.raises(error, match=message):
        PictureData(own, cache=tmp_path / "cache", **options).setup()


@pytest.mark.parametrize(
    ("style", "message"),
    [
        ({"name": "inkk"}, r"style: unknown 'name' 'inkk'\. Did you mean 'ink'"),
        ({"name": "ink", "tonne": 0.4}, r"unknown key 'style\.ink\.tonne'\. Did you mean 'tone'"),
        ({"name": "painted", "painting": 26}, r"style\.painted\.painting: .*less than or equal to 25"),
    ],
)
def test_wrong_styles(tmp_path: Path, style: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        card(tmp_path, {"format": "folder"}, style=style)
