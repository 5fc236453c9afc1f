"""Data set cards: what a data set is, under which licence, where it can be fetched, how it is read and split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from visionpeft.data.captions.cards import CaptionsCard
from visionpeft.data.pictures.cards import PicturesCard
from visionpeft.data.pictures.own import own_card, shows_pictures
from visionpeft.data.segmentation.cards import Intensity, SegmentationCard
from visionpeft.data.sources import FolderSource, Fraction, Sha256, Source, Strict, explain
from visionpeft.data.specs import NAMES_ITS_CLASSES, CoopReader, FolderReader, Part, Reader
from visionpeft.errors import DataError, UnknownNameError, did_you_mean, unknown
from visionpeft.files import resource


class SplitRule(Strict):
    """How images are divided: shares a class, or the official lists.

    ``sha256`` pins the outcome; ``counts`` holds the published number of images of a part, where the files cannot be
    had to take their hash.
    """

    test: Fraction | Literal["official"]
    val: Fraction | Literal["official"]
    seed: int = 0
    sha256: Sha256 | None = None
    counts: dict[Part, int] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _official_together(self) -> SplitRule:
        if self.val == "official" and self.test != "official":
            raise ValueError("'val' can be official only where 'test' is")
        return self


class PromptRule(Strict):
    """How a class is put into words for a model that compares images with texts.

    ``templates`` hold ``{}`` where the words of the class go. ``names`` gives the words of a class; a class without an
    entry is called by its own name, with a space for each of the characters in ``separators``.
    """

    templates: tuple[str, ...] = Field(default=("a photo of a {}.",), min_length=1)
    names: dict[str, str] = Field(default_factory=dict)
    separators: str = "_-"

    @model_validator(mode="after")
    def _can_be_filled(self) -> PromptRule:
        for template in self.templates:
            if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "", 1)):
                raise ValueError(f"the template {template!r} must have {{}} once, where the words of a class go")
        if len(set(self.templates)) != len(self.templates):
            raise ValueError("'templates' has a template twice")
        if empty := [name for name, words in self.names.items() if not words.strip()]:
            raise ValueError(f"'names' has no words for the class {empty[0]!r}")
        return self

    def words(self, name: str) -> str:
        """The words of a class, single spaces between them."""
        spaced = name.translate(str.maketrans(self.separators, " " * len(self.separators)))
        return " ".join(self.names.get(name, spaced).split())


class AugmentRule(Strict):
    """What may be done to a training image without changing its class.

    ``rotate`` in degrees, ``shift`` and ``scale`` as shares of the image, ``light`` as the largest change of
    brightness and contrast; each is drawn uniformly in both directions.
    """

    rotate: float = 10.0
    scale: float = 0.1
    shift: float = 0.08
    flip: bool = False
    light: float = 0.15


class Card(Strict):
    """A card of labelled images. Every field without a default must be present in ``datasets/<name>.yaml``.

    ``layout`` says, where only a person can fetch the files, which of them must lie where.
    """

    name: str
    title: str
    task: Literal["classification"]
    licence: str
    attribution: str
    homepage: str
    layout: str = ""
    classes: tuple[str, ...] = ()
    files: dict[str, Sha256] = Field(default_factory=dict)
    sources: tuple[Source, ...] = Field(min_length=1)
    reader: Reader
    split: SplitRule
    augment: AugmentRule = AugmentRule()
    prompts: PromptRule = PromptRule()

    @model_validator(mode="after")
    def _classes_are_known(self) -> Card:
        if not self.classes and self.reader.format not in NAMES_ITS_CLASSES:
            formats = ", ".join(map(repr, NAMES_ITS_CLASSES))
            raise ValueError(f"'classes' may be left out only for a reader that finds them: {formats}")
        if (
            isinstance(self.reader, FolderReader)
            and self.reader.folders
            and set(self.reader.folders) != set(self.classes)
        ):
            raise ValueError("'reader.folders' must name the folders of each of the 'classes', and of no other")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("'classes' names a class twice")
        if self.classes and (strangers := sorted(set(self.prompts.names) - set(self.classes))):
            near = did_you_mean(strangers[0], self.classes)
            raise ValueError(f"'prompts.names' has the unknown class {strangers[0]!r}.{near}")
        return self


AnyCard = Card | SegmentationCard | CaptionsCard | PicturesCard
KINDS: dict[object, type[AnyCard]] = {
    "classification": Card,
    "segmentation": SegmentationCard,
    "captions": CaptionsCard,
    "pictures": PicturesCard,
}


def cards() -> list[str]:
    """Names of the cards that ship with visionpeft."""
    return sorted(path.stem for path in resource("datasets").glob("*.yaml"))


def load_card(name: str | Path) -> AnyCard:
    """Read a card by its name in ``datasets/``, or by the path of a YAML file or of a folder of images.

    The key ``task`` says which kind of card it is. A folder is read by a template: with ``images`` and ``masks`` inside
    by ``pairs``, with a ``dataset.json`` by ``decathlon``, with CoOp's split file of a data set by its card, with a
    ``metadata.jsonl`` or with pictures and no folder inside by ``pictures``, else by ``folder``, where
    ``train`` and ``test`` inside mean that the latter is the test split.

    Raises:
        UnknownNameError: no card has this name (near names are shown).
        DataError: the file is not valid YAML, has an unknown or missing key, or a value of the wrong type.
    """
    path = Path(name).expanduser()
    if str(name) in cards():
        path = resource("datasets") / f"{name}.yaml"
    elif path.is_dir():
        return _folder_card(path)
    elif path.suffix not in {".yaml", ".yml"}:
        error = unknown("data set", str(name), cards())
        raise UnknownNameError(f"{error} Nor is there a folder {path.absolute()}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no data set card at {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} is not a readable YAML file: {error}") from error
    return parse_card(content, str(path))


def parse_card(content: object, origin: str) -> AnyCard:
    """Check the mapping ``content`` and return the card; ``origin`` names its file in messages."""
    task = content.get("task") if isinstance(content, dict) else None
    kind = KINDS.get(task if isinstance(task, str) else None, Card)
    try:  # JSON mode: strict about types, yet lists may fill tuples
        return kind.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        raise DataError(f"{origin}: " + "; ".join(explain(item, kind) for item in error.errors())) from None


def _folder_card(folder: Path) -> AnyCard:
    place = {
        "name": folder.resolve().name,
        "title": f"Pictures in {folder}",
        "sources": (FolderSource(kind="folder", path=str(folder.resolve())),),
    }
    if published := _published_card(folder):
        return published.model_copy(update={"sources": place["sources"]})
    if (folder / "images").is_dir() and (folder / "masks").is_dir():
        return _pairs_card(folder).model_copy(update=place)
    if (folder / "dataset.json").is_file():
        return load_card("decathlon").model_copy(update=place)
    if shows_pictures(folder):
        return folder_of_pictures(folder)
    template = load_card("folder")
    assert isinstance(template, Card)
    official = (folder / "train").is_dir() and (folder / "test").is_dir()
    split = template.split.model_copy(update={"test": "official"}) if official else template.split
    return template.model_copy(update={**place, "split": split})


def folder_of_pictures(folder: Path) -> PicturesCard:
    """The template ``pictures`` for a folder."""
    template = load_card("pictures")
    assert isinstance(template, PicturesCard)
    return own_card(template, folder)


def _published_card(folder: Path) -> Card | None:
    """The card of the data set whose published split file lies in the folder, if there is one."""
    if not any(folder.glob("split_zhou_*.json")):
        return None
    for card in map(load_card, cards()):
        if isinstance(card, Card) and isinstance(card.reader, CoopReader) and (folder / card.reader.split).is_file():
            return card
    return None


def _pairs_card(folder: Path) -> SegmentationCard:
    """The template ``pairs`` for what lies in the folder: volumes have three axes, one channel and z-scores."""
    template = load_card("pairs")
    assert isinstance(template, SegmentationCard)
    official = {part: "official" for part in ("val", "test") if (folder / "images" / part).is_dir()}
    changes: dict[str, object] = {"split": template.split.model_copy(update=official)}
    if any(path.name.lower().endswith((".nii", ".nii.gz", ".dcm")) for path in (folder / "images").rglob("*")):
        augment = template.augment.model_copy(update={"flip": (0,)})
        changes |= {"axes": 3, "channels": 1, "intensity": Intensity(kind="zscore"), "augment": augment}
    return template.model_copy(update=changes)
