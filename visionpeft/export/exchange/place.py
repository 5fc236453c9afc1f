"""Files put in their place only after they were checked, so that a failure leaves nothing behind."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors.torch import save_file

from visionpeft.errors import UserError
from visionpeft.export.exchange.encode import Encoded
from visionpeft.files import atomic_write

PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
Checked = TypeVar("Checked")


def put(path: Path, content: Encoded, base: str | None, check: Callable[[Path], Checked]) -> Checked:
    """Write beside ``path``, check there, and only then take its place.

    Args:
        path: the file, or peft's folder where the content has a configuration.
        base: where the base is published, for peft's configuration.
        check: called with what was written; when it raises, nothing is left.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".exchange-", dir=path.parent) as staging:
            place = Path(staging) / path.name
            if content.config:
                _write_folder(place, content, base)
            else:
                atomic_write(place, lambda temporary: save_file(content.tensors, temporary, content.metadata))
            found = check(place)
            _take_place(place, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return found


def _write_folder(folder: Path, content: Encoded, base: str | None) -> None:
    config = json.dumps({**content.config, "base_model_name_or_path": base}, indent=1)
    atomic_write(folder / PEFT_WEIGHTS, lambda temporary: save_file(content.tensors, temporary, content.metadata))
    atomic_write(folder / PEFT_CONFIG, config)


def _take_place(place: Path, path: Path) -> None:
    """Rename; of a folder that is there already only the two files of ours are replaced."""
    if not place.is_dir() or not path.is_dir():
        os.replace(place, path)
        return
    for file in (PEFT_WEIGHTS, PEFT_CONFIG):
        os.replace(place / file, path / file)
