"""Texts for classes: from a card, a list or a file, and every way in which a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from visionpeft.data.cards import Card, PromptRule, load_card, parse_card
from visionpeft.data.prompts import prompts_of
from visionpeft.errors import DataError, OptionError
from visionpeft.files import resource

CLASSES = ("house_cat", "face-smiling", "dog")


@pytest.fixture
def card() -> Card:
    rule = PromptRule(templates=("a photo of a {}.", "{}, drawn"), names={"face-smiling": "smiling face"})
    found = load_card("digits")
    assert isinstance(found, Card)
    return found.model_copy(update={"classes": CLASSES, "prompts": rule})


def written(folder: Path, content: object, ending: str = "yaml") -> str:
    path = folder / f"prompts.{ending}"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_class_is_put_into_words_by_its_card(card: Card):
    found = prompts_of(card, CLASSES)
    assert found.classes == CLASSES
    assert found.texts == (
        ("a photo of a house cat.", "house cat, drawn"),
        ("a photo of a smiling face.", "smiling face, drawn"),
        ("a photo of a dog.", "dog, drawn"),
    )


def test_some_classes_in_their_own_order(card: Card):
    assert prompts_of(card, ("dog", "house_cat"), ["the {}"]).texts == (("the dog",), ("the house cat",))


def test_names_with_hyphens_can_be_kept(card: Card):
    rule = PromptRule(separators="_")
    named = card.model_copy(update={"classes": ("707-320", "a_b"), "prompts": rule})
    assert prompts_of(named, named.classes, ["{}"]).texts == (("707-320",), ("a b",))


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_a_file_changes_what_it_names_and_keeps_the_rest(card: Card, tmp_path: Path, ending: str):
    path = written(tmp_path, {"names": {"dog": "good  dog"}}, ending)
    assert [texts[0] for texts in prompts_of(card, CLASSES, path).texts] == [
        "a photo of a house cat.", "a photo of a smiling face.", "a photo of a good dog.",
    ]  # fmt: skip
    path = written(tmp_path, {"templates": ["one {}"]}, ending)
    assert prompts_of(card, CLASSES, path).texts[1] == ("one smiling face",)


def test_a_file_may_name_the_classes_of_the_other_half(card: Card, tmp_path: Path):
    path = written(tmp_path, {"names": {"dog": "hound"}})
    assert len(prompts_of(card, CLASSES[:2], path).texts) == 2
    unlisted = card.model_copy(update={"classes": ()})
    assert len(prompts_of(unlisted, CLASSES[:2], path, known=CLASSES).texts) == 2
    assert len(prompts_of(unlisted, CLASSES[:2], path, known=None).texts) == 2
    with pytest.raises(DataError, match="'dog'"):
        prompts_of(unlisted, CLASSES[:2], path)


def test_the_content_of_a_file_stands_for_its_path(card: Card, tmp_path: Path):
    content = {"templates": ["one {}"], "names": {"dog": "hound"}}
    assert prompts_of(card, CLASSES, content) == prompts_of(card, CLASSES, written(tmp_path, content))
    with pytest.raises(DataError, match=r"task\.templates: unknown key 'template'"):
        prompts_of(card, CLASSES, {"template": ["one {}"]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"names": {"hose_cat": "cat"}}, r"does not: 'hose_cat'\. Did you mean 'house_cat'"),
        ({"templates": ["a photo"]}, r"the template 'a photo' must have \{\} once"),
        ({"templates": ["{} and {}"]}, r"must have \{\} once"),
        ({"templates": ["a {name} {}"]}, r"must have \{\} once"),
        ({"templates": []}, r"templates: needs at least one value"),
        ({"templates": ["a {}", "a {}"]}, r"has a template twice"),
        ({"templates": "a {}"}, r"templates: .*(tuple|array)"),
        ({"templates": [3]}, r"templates\.0: .*string"),
        ({"names": ["dog"]}, r"names: .*object"),
        ({"names": {"dog": 3}}, r"names\.dog: .*string"),
        ({"names": {"dog": " "}}, r"no words for the class 'dog'"),
        ({"names": {"dog": "House Cat"}}, r"'house_cat' and 'dog' have the same words"),
        ({"template": ["a {}"]}, r"unknown key 'template'\. Did you mean 'templates'"),
        ("names:\n  dog: hound\n  dog: wolf\n", r"key 'dog' is given twice"),
        ('{"names": {"dog": "hound", "dog": "wolf"}}', r"key 'dog' is given twice"),
        ("names: [", r"not a readable YAML or JSON"),
        ("", r"prompts\.yaml: should be a mapping of keys"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(card: Card, tmp_path: Path, content: object, message: str):
    with pytest.raises(DataError, match=message) as caught:
        prompts_of(card, CLASSES, written(tmp_path, content))
    assert "prompts.yaml" in str(caught.value) or "in a prompt file" in str(caught.value)


def test_a_file_that_is_not_there(card: Card, tmp_path: Path):
    with pytest.raises(DataError, match=r"there is no prompt file at .*gone\.yaml"):
        prompts_of(card, CLASSES, str(tmp_path / "gone.yaml"))


def test_a_template_where_a_path_belongs(card: Card):
    with pytest.raises(OptionError, match=r"give a list of texts, \['a \{\}'\]"):
        prompts_of(card, CLASSES, "a {}")


def test_a_wrong_list(card: Card):
    with pytest.raises(DataError, match=r"templates: .*'a photo' must have"):
        prompts_of(card, CLASSES, ["a photo"])
    with pytest.raises(DataError, match="at least one value"):
        prompts_of(card, CLASSES, [])


def test_a_class_that_occurs_twice(card: Card):
    with pytest.raises(DataError, match="the class 'dog' occurs twice"):
        prompts_of(card, ("dog", "house_cat", "dog"))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"names": {"Bags": "bag"}}, r"unknown class 'Bags'\. Did you mean 'Bag'"),
        ({"templates": ["nothing"]}, r"'nothing' must have \{\} once"),
        ({"template": ["{}"]}, r"unknown key 'prompts\.template'\. Did you mean 'templates'"),
    ],
)
def test_a_card_with_wrong_prompts(prompts: dict, message: str):
    content = yaml.safe_load((resource("datasets") / "fashion-mnist.yaml").read_text())
    with pytest.raises(DataError, match=message):
        parse_card({**content, "prompts": prompts}, "card.yaml")
