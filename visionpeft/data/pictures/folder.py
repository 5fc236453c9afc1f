"""Reads a folder of pictures; captions from ``metadata.jsonl``, from text files, from names of folders, or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from visionpeft.data.captions.readers import first_line
from visionpeft.data.pictures.cards import FolderReader, PictureCollection
from visionpeft.data.pictures.found import Found
from visionpeft.data.raw import IMAGE_SUFFIXES
from visionpeft.data.tables import PARTS
from visionpeft.errors import DataError

Texts = tuple[str, ...]
METADATA = "metadata.jsonl"


def folder(collection: PictureCollection, place: Path) -> list[Found]:
    """All pictures below ``place``, by path.

    Raises:
        DataError: a picture has no caption where others have one, or a caption is of no picture.
    """
    assert isinstance(collection.reader, FolderReader)
    paths = pictures_below(place, collection.reader.leave_out, collection.reader.only)
    kind = collection.reader.captions
    say = _SAYERS[_found_out(place, paths) if kind == "auto" else kind]
    return [_found(collection.images.name, place, path, texts) for path, texts in say(place, paths).items()]


def pictures_below(place: Path, leave_out: Texts = (), only: Texts = ("*",)) -> list[Path]:
    """Picture files by path that match a glob of ``only``; neither hidden ones nor those that match ``leave_out``."""
    found = sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    names = {path: path.relative_to(place).as_posix() for path in found}
    wanted = [path for path in found if _matches(names[path], only) and not _matches(names[path], leave_out)]
    return [path for path in wanted if not any(part.startswith(".") for part in path.relative_to(place).parts)]


def _matches(name: str, globs: Texts) -> bool:
    return any(fnmatch(name, glob) for glob in globs)


def _found(name: str, place: Path, path: Path, texts: Texts) -> Found:
    inside = path.relative_to(place)
    part = inside.parts[0] if len(inside.parts) > 1 and inside.parts[0] in PARTS else None
    folders = inside.parts[1 if part else 0 : -1]
    key = f"{name}/{inside.as_posix()}"
    return Found(key, path, texts, key, key, folders[0] if folders else name, part)


def _found_out(place: Path, paths: list[Path]) -> str:
    """Which of the ways to caption a folder this one has."""
    if _metadata_files(place):
        return "metadata"
    if any(path.with_suffix(".txt").is_file() for path in paths):
        return "sidecar"
    return "folder" if all(_class_folders(place, path) for path in paths) else "none"


def _class_folders(place: Path, path: Path) -> Texts:
    folders = path.relative_to(place).parts[:-1]
    return folders[1:] if folders[:1] and folders[0] in PARTS else folders


def _none(place: Path, paths: list[Path]) -> dict[Path, Texts]:
    return dict.fromkeys(paths, ("",))


def _folder_names(place: Path, paths: list[Path]) -> dict[Path, Texts]:
    if bare := next((path for path in paths if not _class_folders(place, path)), None):
        raise DataError(f"{bare} lies in no folder that could name it: move it into one, or use other captions")
    names = {path: _class_folders(place, path)[-1].replace("_", " ").replace("-", " ") for path in paths}
    return {path: (" ".join(name.split()),) for path, name in names.items()}


def _sidecar(place: Path, paths: list[Path]) -> dict[Path, Texts]:
    missing = [path for path in paths if not path.with_suffix(".txt").is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(paths)} pictures have no caption: {missing[0].with_suffix('.txt')} is missing "
            "(one line of text; `captions: none` leaves all captions away)"
        )
    return {path: (first_line(path.with_suffix(".txt")),) for path in paths}


def _metadata_files(place: Path) -> list[Path]:
    return [path for path in (place / METADATA, *(place / part / METADATA for part in PARTS)) if path.is_file()]


def _metadata(place: Path, paths: list[Path]) -> dict[Path, Texts]:
    files = _metadata_files(place)
    if not files:
        raise DataError(f"{place} has no {METADATA}, but the card says `captions: metadata`")
    said = {path: texts for file in files for path, texts in _lines(file, place).items()}
    if missing := [path for path in paths if path not in said]:
        raise DataError(f"{files[0]} has no line for {len(missing)} of {len(paths)} pictures, such as {missing[0]}")
    if gone := next((path for path in said if not path.is_file()), None):
        raise DataError(f"the picture {gone} is missing, though {files[0]} has its caption")
    return {path: said[path] for path in paths}


def _lines(file: Path, place: Path) -> dict[Path, Texts]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}") from error
    said = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            name, texts = _line(line, f"{file}, line {number}")
            path = file.parent / name
            if not path.resolve().is_relative_to(place.resolve()):
                raise DataError(f"{file}, line {number}: the picture {name!r} lies outside of {place}")
            said[path] = texts
    return said


def _line(line: str, where: str) -> tuple[str, Texts]:
    """The picture's name and its captions: ``text`` is one caption or a list of them."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: this is no JSON: {error}") from error
    name, text = (row.get("file_name"), row.get("text")) if isinstance(row, dict) else (None, None)
    given = text if isinstance(text, list) else [text]
    texts = tuple(one.strip() for one in given if isinstance(one, str) and one.strip())
    if not isinstance(name, str) or not texts or len(texts) < len(given):
        raise DataError(f'{where}: a line should be {{"file_name": "a.png", "text": "what it shows"}}')
    return name, texts


_SAYERS: dict[str, Callable[[Path, list[Path]], dict[Path, Texts]]] = {
    "metadata": _metadata,
    "sidecar": _sidecar,
    "folder": _folder_names,
    "none": _none,
}
