"""Unpacking archives so that no member can leave the target folder."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO

from visionpeft.errors import DataError


def extract_tar(archive: tarfile.TarFile, target: Path, inside: str = "", keep: Iterable[str] = ()) -> int:
    """Unpack the regular files below ``inside`` into ``target``; links and devices are never created.

    ``keep`` limits the files by globs relative to ``inside``. Returns the number of files.

    Raises:
        DataError: a member's path is absolute or climbs out of the archive, or the archive is damaged.
    """
    count = 0
    try:
        for member in archive:
            place = _place(member.name, inside, keep)
            if place is not None and member.isfile() and (stream := archive.extractfile(member)):
                count += _write(stream, target / place)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"the archive is damaged: {error}") from error
    return count


def extract_zip(path: Path, target: Path, inside: str = "", keep: Iterable[str] = ()) -> int:
    """As :func:`extract_tar`, for the zip file (or wheel) at ``path``."""
    count = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                place = _place(member.filename, inside, keep)
                if place is not None and not member.is_dir():
                    with archive.open(member) as stream:
                        count += _write(stream, target / place)
    except (zipfile.BadZipFile, EOFError) as error:
        raise DataError(f"{path.name} is damaged: {error}") from error
    return count


def _place(name: str, inside: str, keep: Iterable[str]) -> PurePosixPath | None:
    """Where a member goes, relative to the target; None if it is not wanted."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise DataError(f"refusing an archive with a member that leaves its folder: {name!r}")
    if not path.is_relative_to(inside or "."):
        return None
    place = path.relative_to(inside or ".")
    wanted = not (globs := list(keep)) or any(fnmatch(str(place), glob) for glob in globs)
    return place if wanted else None


def _write(stream: IO[bytes], path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        shutil.copyfileobj(stream, file)
    return 1
