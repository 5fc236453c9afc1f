"""Texts for classes: the templates of a card, of a list or of a file, filled with the words of each class."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from visionpeft.data.cards import Card, PromptRule
from visionpeft.data.sources import Strict, explain
from visionpeft.errors import DataError, OptionError, did_you_mean

Kind = TypeVar("Kind", bound=Strict)
Templates = Sequence[str] | Mapping[str, Any] | str | None
"""A list of texts with ``{}``, the path of a prompt file, or what stands in one; None takes those of the card."""
KEY = "task.templates"
"""Where a recipe says it."""


class _OnceLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for place, key in enumerate(keys) if key in keys[:place]]:
            raise yaml.constructor.ConstructorError(None, None, f"key {twice[0]!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Prompts:
    """Texts of K classes: ``texts[k]`` holds T texts of ``classes[k]``, one a template, in the order of the labels."""

    classes: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]


class PromptFile(Strict):
    """A file of ``templates``, of ``names``, or of both; what it leaves out comes from the card."""

    templates: tuple[str, ...] | None = None
    names: dict[str, str] | None = None


def prompts_of(
    card: Card,
    classes: Sequence[str],
    templates: Templates = None,
    known: Sequence[str] | None = (),
) -> Prompts:
    """The texts of ``classes``.

    Args:
        card: says how its classes are put into words unless ``templates`` says otherwise.
        classes: the classes to tell apart, in the order of their labels.
        templates: a list of texts with ``{}``, or a prompt file's path or content (YAML or JSON):
            ``templates: [a photo of a {}.]`` and ``names: {class: words}``; default: the card's.
        known: classes that a prompt file may name besides ``classes``, such as the other half of the card's; None
            allows any.

    Raises:
        OptionError: a template is written where the path of a prompt file belongs.
        DataError: a template without ``{}``, an empty list, a class that the data set does not have, the file is not
            readable, a class twice, or two classes with the same words, which no text could tell apart.
    """
    if len(set(classes)) != len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise DataError(f"data set {card.name!r}: the class {twice!r} occurs twice")
    rule = card.prompts
    if isinstance(templates, (str, Mapping)):
        rule = _by_file(templates, card, None if known is None else (*classes, *card.classes, *known))
    elif templates is not None:
        rule = _changed(rule, {"templates": list(templates)}, KEY)
    words = _distinct(card, {name: rule.words(name) for name in classes})
    return Prompts(tuple(classes), tuple(tuple(text.format(word) for text in rule.templates) for word in words))


def read_prompts(source: str | Mapping[str, Any]) -> PromptFile:
    """A prompt file by its path, or what stands in one.

    Raises:
        OptionError, DataError: see :func:`prompts_of`.
    """
    origin = source if isinstance(source, str) else KEY
    found = _checked(PromptFile, _content(source) if isinstance(source, str) else source, origin)
    _changed(PromptRule(), found.model_dump(exclude_none=True, mode="json"), origin)
    return found


def _content(name: str) -> object:
    path = Path(name).expanduser()
    if "{}" in name and not path.exists():
        raise OptionError(f"{KEY} is the text {name!r}: give a list of texts, [{name!r}], or a prompt file's path")
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_OnceLoader)  # JSON is YAML
    except FileNotFoundError:
        raise DataError(f"{KEY}: there is no prompt file at {path.absolute()}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} is not a readable YAML or JSON file: {error}") from error


def _by_file(source: str | Mapping[str, Any], card: Card, known: Sequence[str] | None) -> PromptRule:
    found, origin = read_prompts(source), source if isinstance(source, str) else KEY
    for stranger in found.names or {}:
        if known is not None and stranger not in known:
            near = did_you_mean(stranger, known)
            raise DataError(f"{origin}: 'names' has a class that data set {card.name!r} does not: {stranger!r}.{near}")
    changes = found.model_dump(exclude_none=True, mode="json")
    return _changed(card.prompts, changes | {"names": card.prompts.names | (found.names or {})}, origin)


def _changed(rule: PromptRule, changes: Mapping[str, object], origin: str) -> PromptRule:
    return _checked(PromptRule, {**rule.model_dump(mode="json"), **changes}, origin)


def _checked(kind: type[Kind], content: object, origin: str) -> Kind:
    try:  # JSON mode: strict about types, yet lists may fill tuples
        return kind.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        raise DataError(f"{origin}: " + "; ".join(explain(item, kind) for item in error.errors())) from None


def _distinct(card: Card, words: dict[str, str]) -> list[str]:
    first: dict[str, str] = {}
    for name, text in words.items():
        if other := first.get(text.lower()):
            raise DataError(
                f"data set {card.name!r}: the classes {other!r} and {name!r} have the same words, {text!r}; "
                "give one of them others under 'names' in a prompt file"
            )
        first[text.lower()] = name
    return list(words.values())
