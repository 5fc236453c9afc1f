"""Tensors of a run on disk: safetensors, written atomically and read with care."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from visionpeft.backbones.weights import check_finite, read_state
from visionpeft.errors import UserError
from visionpeft.files import atomic_write


def write_weights(path: Path, state: dict[str, torch.Tensor]) -> None:
    """Save tensors by name as safetensors, atomically."""
    plain = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    atomic_write(path, lambda temporary: save_file(plain, temporary))


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name.

    Raises:
        UserError: the file is missing, truncated, or holds NaN.
    """
    state = read_tensors(path)
    check_finite(state, str(path))
    return state


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, NaN allowed (a score may be undefined).

    Raises:
        UserError: the file is missing or truncated.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing")
    return read_state(path)


def read_exactly(path: Path, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Tensors of a file that must hold these names and no others.

    Raises:
        UserError: the file is missing or truncated, or holds something else.
    """
    state = read_tensors(path)
    if state.keys() != set(names):
        raise UserError(f"{path} holds {', '.join(state)}, not {', '.join(names)}")
    return state
