"""Which cases the words of a command name: files, folders, globs; DICOM files of one series are one case."""

from __future__ import annotations

import glob
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from visionpeft.errors import DataError, UserError, did_you_mean
from visionpeft.predict.pictures import read_picture
from visionpeft.predict.scans import SUFFIXES, Scan, suffix_of
from visionpeft.predict.volumes import read_dicom, read_nifti


@dataclass(frozen=True)
class Input:
    """A case: its files (several for a DICOM series) and its name, a relative path without suffix."""

    name: str
    files: tuple[Path, ...]

    @property
    def output(self) -> str:
        """Name of its mask."""
        return self.name + SUFFIXES[suffix_of(self.files[0])]

    def read(self, axes: int) -> Scan:
        """Open it for a network of ``axes`` spatial axes.

        Raises:
            DataError: see the readers.
        """
        path, suffix = self.files[0], suffix_of(self.files[0])
        if not path.exists():
            raise DataError(f"there is no file {path}")
        if suffix == ".dcm":
            return read_dicom(path.parent if len(self.files) > 1 else path, axes)
        return read_nifti(path, axes) if suffix in (".nii", ".nii.gz") else read_picture(path, axes)


def find_inputs(words: Iterable[str], suffixes: Collection[str] = tuple(SUFFIXES)) -> list[Input]:
    """The cases that files, folders (with all below them) and globs name, in this order, each once.

    Args:
        words: names of files and folders, and globs.
        suffixes: of the files that are read.

    Raises:
        UserError: a word names nothing that can be read.
    """
    found: dict[tuple[Path, ...], Input] = {}
    for case in (case for word in words for case in _named_by(word, suffixes)):
        found.setdefault(case.files, case)
    return list(found.values())


def check_outputs(cases: Iterable[Input], output: Path) -> None:
    """Raise UserError where two cases would have one mask below ``output``, or a mask would overwrite its image."""
    by_output: dict[str, Input] = {}
    for case in cases:
        other = by_output.setdefault(case.output, case)
        if other is not case:
            raise UserError(f"{other.files[0]} and {case.files[0]} would both be written to {output / case.output}")
        if (output / case.output).resolve() in {file.resolve() for file in case.files}:
            raise UserError(f"the mask of {case.files[0]} would overwrite it: choose another --output")


def _named_by(word: str, suffixes: Collection[str]) -> list[Input]:
    path = Path(word)
    if path.exists() or not glob.has_magic(word):
        paths = [path]
    else:
        paths = [Path(name) for name in sorted(glob.glob(word, recursive=True))]
    cases = [case for one in paths for case in (_in_folder(one, suffixes) if one.is_dir() else [_alone(one, suffixes)])]
    if not cases:
        raise UserError(f"{word} names no image; these are read: {', '.join(suffixes)}")
    return cases


def _alone(path: Path, suffixes: Collection[str]) -> Input:
    suffix = suffix_of(path)
    if not path.exists():
        near = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"there is no file {path}.{did_you_mean(path.name, near) if near else ''}")
    if suffix not in suffixes:
        raise UserError(f"{path} cannot be read; these are: {', '.join(suffixes)}")
    return Input(path.name[: -len(suffix)], (path,))


def _in_folder(folder: Path, suffixes: Collection[str]) -> Iterator[Input]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    slices: dict[Path, list[Path]] = {}
    for path in files:
        suffix = suffix_of(path)
        if suffix not in suffixes:
            continue
        if suffix == ".dcm":
            slices.setdefault(path.parent, []).append(path)
        else:
            name = path.relative_to(folder).as_posix()
            yield Input(name[: -len(suffix)], (path,))
    for parent, members in slices.items():
        place = parent.relative_to(folder).as_posix()
        name, inside = (folder.resolve().name, "") if place == "." else (place, f"{place}/")
        yield from _series(name, inside, members)


def _series(name: str, folder: str, files: Sequence[Path]) -> Iterator[Input]:
    """One case where the DICOM files of a folder are slices; one a file where each is a series of its own."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    found = set()
    for path in files:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
            found.add(str(header.get("SeriesInstanceUID", "")))
        except (InvalidDicomError, OSError, ValueError):
            found.add("")  # its error is reported when the case is read
    if len(files) > 1 and len(found) == len(files):
        yield from (Input(f"{folder}{path.stem}", (path,)) for path in files)
    else:
        yield Input(name, tuple(files))
