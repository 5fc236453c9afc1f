"""The command line. Libraries are imported inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import logging
import sys

from visionpeft.cli import (  # noqa: F401 - each registers its commands
    catalogue,
    exchange,
    machine,
    models,
    predicting,
    sampling,
    training,
)
from visionpeft.cli.app import app
from visionpeft.errors import UserError


def main() -> None:
    """Run the command line: exit code 0 done, 2 the input is wrong (one line says how), 1 anything else."""
    # torch tells torchao, which transformers imports wherever it is installed, of a call that will be deprecated.
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
    try:
        app()
    except UserError as error:
        print(f"visionpeft: {error}", *_notes(error), sep="\n", file=sys.stderr)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning turns an interrupt of its loop into an exit
        if isinstance(stop, KeyboardInterrupt) or _notes(stop):
            print("visionpeft: interrupted", *_notes(stop), sep="\n", file=sys.stderr)
            raise SystemExit(1) from None
        raise


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))
