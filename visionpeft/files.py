"""Atomic writes, and where the top-level folders lie (checkout or installed wheel)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from visionpeft.errors import UserError

_PACKAGE = Path(__file__).resolve().parent


def resource(folder: str) -> Path:
    """Folder ``recipes``, ``datasets`` or ``kernels``: inside the wheel if installed, else beside the package."""
    for root in (_PACKAGE, _PACKAGE.parent):
        if (found := root / folder).is_dir() and not (found / "__init__.py").exists():
            return found
    raise UserError(f"the folder {folder!r} is neither in {_PACKAGE} nor beside it: reinstall visionpeft")


def cache_dir() -> Path:
    """The user's cache: ``VISIONPEFT_CACHE``, else ``$XDG_CACHE_HOME/visionpeft``, else ``~/.cache/visionpeft``."""
    if chosen := os.environ.get("VISIONPEFT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "visionpeft"


def atomic_write(path: str | Path, content: bytes | str | Callable[[Path], object]) -> Path:
    """Write ``content`` so that ``path`` is either the old file or the whole new one.

    ``content`` is bytes, text, or a function that writes to the temporary path it is given. The temporary file lies
    beside ``path``; it is flushed to disk and renamed, and removed when anything fails.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        _fill(temporary, content)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _fill(path: Path, content: bytes | str | Callable[[Path], object]) -> None:
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
