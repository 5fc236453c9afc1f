"""Several processes: the first one leads a run; the others only train with it.

Lightning starts the other processes by calling the same command again. They find the leader's folder by an environment
variable, or by ``--output`` where another launcher (torchrun, SLURM) started all of them at once.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from visionpeft.errors import StateError

_FOLDER = "VISIONPEFT_RUN_FOLDER"
_PATIENCE = 120  # seconds a follower waits for the leader to make the folder


def follows() -> bool:
    """Whether this process is not the first of its run."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    return bool(getattr(rank_zero_only, "rank", 0))


def lead(folder: Path) -> None:
    """Tell processes that are started from here where the run lies."""
    os.environ[_FOLDER] = str(folder.resolve())


def leaders_folder(otherwise: Path) -> Path:
    """The folder the leader works in; ``otherwise`` is where it must be if the leader could not say.

    Raises:
        StateError: there is none, even after waiting.
    """
    folder = Path(os.environ.get(_FOLDER, otherwise))
    deadline = time.monotonic() + _PATIENCE
    while not folder.is_dir():
        if time.monotonic() > deadline:
            raise StateError(f"the first process did not make {folder}: give all processes the same --output")
        time.sleep(0.1)
    return folder


def part() -> None:
    """After the last training: leave the process group, so that the leader can go on alone."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    os.environ.pop(_FOLDER, None)
