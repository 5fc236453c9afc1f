"""Image–caption pairs: how they are read, which are kept, and what is said of wrong files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tinypairs
from PIL import Image

from visionpeft.data.captions.cards import CaptionsCard, Collection
from visionpeft.data.captions.concepts import Concepts, stem
from visionpeft.data.captions.module import PairData
from visionpeft.data.captions.open import fitted, open_pairs
from visionpeft.data.captions.readers import read_pairs
from visionpeft.data.cards import load_card, parse_card
from visionpeft.errors import DataError

SVG = """<svg xmlns="http://www.w3.org/2000/svg"><metadata><rdf:RDF><cc:Work rdf:about="">
<dc:title>{title}</dc:title><dc:description>A drawing</dc:description>
<dc:subject><rdf:Bag><rdf:li></rdf:li><rdf:li>{keyword}</rdf:li><rdf:li>hash</rdf:li><rdf:li>lemon-theme</rdf:li>
</rdf:Bag></dc:subject><dc:publisher><cc:Agent><dc:title>Open Clip Art</dc:title></cc:Agent></dc:publisher>
</cc:Work></rdf:RDF></metadata></svg>"""


@pytest.mark.parametrize(
    ("concept", "text"),
    [
        ("bird", "Two birds on a wire"),
        ("cherry", "red cherries"),
        ("hot dog", "a hot dog, please"),
        ("*fish", "a goldfish"),
        ("house*", "things of the household"),
        ("shelf", "shelves"),
        ("child's toy", "childs toys"),
        ("box", "boxes"),
    ],
)
def test_a_text_mentions_a_concept(concept: str, text: str) -> None:
    assert Concepts([concept, "something else"]).mentioned(text)


@pytest.mark.parametrize(
    ("concept", "text"),
    [("car", "a scar and a card"), ("hot dog", "a dog that is hot"), ("bus", "business"), ("fish", "a goldfish")],
)
def test_a_text_does_not_mention_a_concept(concept: str, text: str) -> None:
    assert Concepts([concept]).mentioned(text) is None


def test_no_concept_is_mentioned_by_nothing() -> None:
    assert Concepts([]).mentioned("anything") is None
    assert [stem(word) for word in ("glass", "bus", "iris", "gas")] == ["glass", "bus", "iris", "gas"]


def test_held_out_concepts_are_kept_out(tmp_path: Path) -> None:
    table = open_pairs(tinypairs.card(tmp_path), tmp_path / "cache")
    said = " ".join(text for texts in table.texts for text in texts)
    assert len(table) == 8 * len(tinypairs.SEEN) == table.counts["kept"]
    assert table.counts["mentions a concept of the test classes"] == 16
    assert all((tinypairs.WORDS[digit] in said) == (digit in tinypairs.SEEN) for digit in range(10))
    assert table.images.shape == (48, 16, 16, 3) and table.images.dtype == np.uint8


def test_the_pairs_are_decoded_once(tmp_path: Path) -> None:
    card = tinypairs.card(tmp_path)
    first = open_pairs(card, tmp_path / "cache")
    for path in (tmp_path / "pairs").glob("*.png"):
        path.write_bytes(b"")
    again = open_pairs(card, tmp_path / "cache")
    assert again.sha256 == first.sha256 and np.array_equal(again.images, first.images)


def test_a_pin_that_does_not_hold(tmp_path: Path) -> None:
    found = open_pairs(tinypairs.card(tmp_path), tmp_path / "cache").sha256
    pinned = tinypairs.card(tmp_path, pairs={"size": 16, "sha256": found})
    assert open_pairs(pinned, tmp_path / "cache").sha256 == found
    with pytest.raises(DataError, match=rf"its 48 pairs have sha256 {found}, but the card pins 0000"):
        open_pairs(tinypairs.card(tmp_path, pairs={"size": 16, "sha256": "0" * 64}), tmp_path / "cache")


def test_what_is_alike_is_capped_and_what_an_evaluation_shows_is_left_out(tmp_path: Path) -> None:
    capped = tinypairs.card(tmp_path, pairs={"size": 16, "alike": 3})
    assert len(open_pairs(capped, tmp_path / "cache")) == 3 * len(tinypairs.SEEN)
    shown = tmp_path / "shown"
    for digit in (0, 1):
        (shown / str(digit)).mkdir(parents=True)
        for place in range(4):
            name = f"{digit}-{place}.png"
            (shown / str(digit) / name).write_bytes((tmp_path / "pairs" / name).read_bytes())
    table = open_pairs(tinypairs.card(tmp_path, never_shown=[str(shown)]), tmp_path / "cache")
    assert table.counts["a picture of an evaluation card"] == 8
    assert not {f"digits/0-{place}.png" for place in range(4)} & set(table.keys)


def test_seeds_draw_other_shots_and_test_the_same_images(tmp_path: Path) -> None:
    data = [PairData(tinypairs.card(tmp_path), centroid_shots=2, seed=s, image_size=16) for s in (0, 1, 2)]
    for one in data:
        one.setup()
    assert len({one.main.split.test for one in data}) == 1
    assert len({one.main.split.train for one in data}) > 1
    assert not set(data[0].main.split.test) & {i for one in data for i in one.main.split.train}
    assert data[0].validation.split.train == () and len(data[0].validation.split.test) == 28


def clipart(folder: Path, title: str, keyword: str, name: str = "animals/cat_face_01") -> None:
    (folder / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", (6, 4), (255, 0, 0, 128)).save(folder / f"{name}.png")
    (folder / f"{name}.svg").write_text(SVG.format(title=title, keyword=keyword))


def collection(fmt: str, folder: Path, **more: object) -> Collection:
    source = [{"kind": "folder", "path": str(folder)}]
    files = {"name": "own", "title": "Own", "homepage": "-", "sources": source}
    content = {"reader": {"format": fmt, **more}, "licence": "-", "attribution": "-", "images": files}
    texts = {"texts": files} if fmt == "openclipart" else {}
    return Collection.model_validate_json(json.dumps(content | texts))


def test_open_clip_art_is_read_by_its_metadata(tmp_path: Path) -> None:
    clipart(tmp_path, "A cat &amp; its <i>face</i>", "pet")
    (pair,) = read_pairs(collection("openclipart", tmp_path), tmp_path, tmp_path)
    assert pair.texts == ("A cat & its face", "pet", "A cat & its face: pet")
    assert "animals" in pair.about and "A drawing" in pair.about
    assert "lemon" not in pair.about, "the theme lemon shows no lemons"
    assert pair.key == "own/animals/cat_face_01.png"


def test_a_title_of_a_whole_series_gives_way_to_the_file_name(tmp_path: Path) -> None:
    for number in range(7):
        clipart(tmp_path, "Clipart by N. N.", "pet", f"cats/grey_cat_{number}")
    pairs = read_pairs(collection("openclipart", tmp_path), tmp_path, tmp_path)
    assert {pair.texts[0] for pair in pairs} == {"grey cat"}


def test_a_picture_fits_into_a_white_square(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 2), (0, 0, 0, 255)).save(tmp_path / "wide.png")
    square = fitted(tmp_path / "wide.png", 16)
    assert square.shape == (16, 16, 3)
    assert (square[:6] == 255).all() and (square[10:] == 255).all() and (square[7:9] == 0).all()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a.png,\n", r"captions\.csv, line 2: the caption is missing"),
        (",a cat\n", r"captions\.csv, line 2: the image is missing"),
        ("b.png,a cat\n", r"the image .*b\.png is missing"),
        ("../a.png,a cat\n", r"line 2: the image '\.\./a\.png' lies outside"),
        ("", r"holds no image–caption pair of the format 'csv'"),
    ],
)
def test_wrong_captions(tmp_path: Path, rows: str, message: str) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text(f"image,caption\n{rows}")
    with pytest.raises(DataError, match=message):
        read_pairs(collection("csv", tmp_path), tmp_path)


def test_a_caption_beside_a_picture(tmp_path: Path) -> None:
    (tmp_path / "food").mkdir()
    for name in ("pea", "pea_mirror"):
        Image.new("L", (4, 4)).save(tmp_path / "food" / f"{name}.png")
    text = tmp_path / "food" / "pea.txt"
    text.write_text("A pea.\nfr.utf8=Un petit pois.\n")
    (pair,) = read_pairs(collection("sidecar", tmp_path), tmp_path)
    assert pair.texts == ("A pea",) and "food" in pair.about
    text.write_text("\n")
    with pytest.raises(DataError, match=r"the caption .*pea\.txt is empty"):
        read_pairs(collection("sidecar", tmp_path), tmp_path)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    card = tinypairs.card(tmp_path)
    (tmp_path / "pairs" / "0-0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot read the image .*0-0\.png"):
        open_pairs(card, tmp_path / "cache")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"validation": {"card": "stamps", "concepts": {"bird": ["bird"], "fruit": []}}},
            r"no word for the class 'fruit'",
        ),
        ({"collections": []}, r"collections: .*at least one"),
        ({"pairs": {"sise": 3}}, r"unknown key 'pairs\.sise'\..*'size'"),
    ],
)
def test_wrong_cards(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_card(tinypairs.content(tmp_path, **changes), "card.yaml")


def test_the_shipped_card_knows_its_classes() -> None:
    """Every class of `stamps` that is held out exists, and no held-out class lies in both validation and test."""
    card, stamps = load_card("captions-small"), load_card("stamps")
    assert isinstance(card, CaptionsCard)
    assert set(card.test["stamps"].classes) <= set(stamps.classes)  # pyright: ignore[reportAttributeAccessIssue]
    assert not set(card.validation.classes) & {name for held in card.test.values() for name in held.classes}
    for held in (card.validation, *card.test.values()):
        alike = (held,) if held is card.validation else card.test.values()
        concepts = Concepts(word for one in alike for words in one.concepts.values() for word in words)
        prompts = load_card(held.card).prompts  # pyright: ignore[reportAttributeAccessIssue]
        texts = [held.words.get(label, prompts.words(label)) for label in held.classes]
        assert not (unnamed := [text for text in texts if not concepts.mentioned(text)]), unnamed
