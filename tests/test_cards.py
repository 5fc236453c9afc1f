"""Data set cards: those that ship are whole, and a wrong one says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from visionpeft.data.captions.cards import CaptionsCard
from visionpeft.data.cards import AnyCard, Card, cards, load_card, parse_card
from visionpeft.data.open import classification_card
from visionpeft.data.pictures.cards import PicturesCard
from visionpeft.errors import DataError, UnknownNameError
from visionpeft.files import resource

TEMPLATES = {"folder", "pairs", "decathlon", "pictures"}  # for data of one's own


def content(name: str = "fashion-mnist") -> dict:
    return yaml.safe_load((resource("datasets") / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", cards())
def test_a_shipped_card_is_whole(name: str) -> None:
    card = load_card(name)
    assert card.name == name, "a card's name is its file's name"
    assert all((card.title, card.licence, card.attribution, card.homepage))
    if isinstance(card, CaptionsCard):
        assert card.pairs.sha256, "figures are comparable only if the pairs are pinned"
    elif isinstance(card, PicturesCard):
        assert card.split.sha256 or name in TEMPLATES, "figures are comparable only if the split is pinned"
        assert all(files.sources[0].kind == "folder" for files in card.parts), "files that lie here come first"
    elif name not in TEMPLATES:
        assert card.split.sha256 or published(card), "figures are comparable only if the split is pinned"
        assert card.sources[0].kind == "folder", "files that lie here already come first"
        assert len(card.classes) >= 2 or published(card)


def published(card: AnyCard) -> bool:
    """Whether the split is a published list, and the files, which only a person can fetch, say the rest."""
    return isinstance(card, Card) and bool(card.layout and card.split.counts.get("test"))


def test_a_card_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_card("digits").title = "other"  # pyright: ignore[reportAttributeAccessIssue]


def test_unknown_name_shows_near_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown data set 'fashion_mnist'\. Did you mean 'fashion-mnist'"):
        load_card("fashion_mnist")


@pytest.mark.parametrize(
    ("place", "wrong", "near"),
    [
        ((), "licens", "licence"),
        (("split",), "vall", "val"),
        (("reader",), "formatt", "format"),
        (("sources", 2), "sha265", "sha256"),
        (("augment",), "rotat", "rotate"),
    ],
)
def test_unknown_key_shows_near_ones(place: tuple, wrong: str, near: str) -> None:
    card = content()
    inner = card
    for step in place:
        inner = inner[step]
    inner[wrong] = 1
    with pytest.raises(DataError, match=rf"unknown key '[\w.]*{wrong}'\..*Did you mean.*'{near}'"):
        parse_card(card, "card.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"title": 3}, r"title: .*string"),
        ({"split": {"test": 1.5, "val": 0.1}}, r"split\.test.*less than 1"),
        ({"classes": ["a", "a"]}, r"names a class twice"),
        ({"classes": []}, r"'classes' may be left out only"),
        ({"split": {"test": 0.2, "val": "official"}}, r"'val' can be official only where 'test' is"),
        (
            {"split": {"test": 0.2, "val": 0.1, "counts": {"tests": 1}}},
            r"split\.counts\.tests.*'train', 'val' or 'test'",
        ),
        (
            {"reader": {"format": "folder", "folders": {"Coat": ["a"]}}},
            r"must name the folders of each of the 'classes'",
        ),
        ({"sources": []}, r"sources: .*at least one"),
        ({"sources": [{"kind": "ftp"}]}, r"sources\.0: .*'ftp'"),
        ({"files": {"a": "123"}}, r"files\.a: .*pattern"),
    ],
)
def test_wrong_value_names_the_key(changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_card({**content(), **changes}, "card.yaml")


def test_missing_key_is_named() -> None:
    card = content()
    del card["licence"]
    with pytest.raises(DataError, match=r"card\.yaml: licence: Field required"):
        parse_card(card, "card.yaml")


def test_a_file_that_is_no_card(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    with pytest.raises(DataError, match="there is no data set card"):
        load_card(path)
    path.write_text("a: [1")
    with pytest.raises(DataError, match="not a readable YAML"):
        load_card(path)
    path.write_text("- 1\n- 2\n")
    with pytest.raises(DataError, match=r"card\.yaml: should be a mapping of keys"):
        load_card(path)


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_text("name: !!python/object/apply:os.system ['touch harmed']\n")
    with pytest.raises(DataError, match="not a readable YAML"):
        load_card(path)


def test_a_folder_is_its_own_card(tmp_path: Path) -> None:
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    card = classification_card(tmp_path / "pets")
    assert (card.name, card.split.test) == ("pets", 0.2)
    for part in ("train", "test"):
        (tmp_path / "pets" / part).mkdir()
    assert classification_card(tmp_path / "pets").split.test == "official"
