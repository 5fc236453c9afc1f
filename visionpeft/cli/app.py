"""The typer application that the command modules register with."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="visionpeft",
    help="Adapt pretrained vision and 3D models with few trainable weights.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Start with: visionpeft run classify/quickstart",
)


def example(*lines: str) -> str:
    """The epilog of a command's help: how one calls it."""
    return "Example: " + "; ".join(lines)


def _version(wanted: bool) -> None:
    if wanted:
        from visionpeft import __version__

        print(f"visionpeft {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Adapt pretrained vision and 3D models with few trainable weights."""
