"""Commands about adapter files of other tools: ``convert``, ``formats``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from visionpeft.cli.app import app, example

formats = typer.Typer(help="Adapter files of other tools.", rich_markup_mode=None, no_args_is_help=True)
app.add_typer(formats, name="formats", epilog=example("visionpeft formats check style.safetensors"))

BASE = "A pipeline folder, run:NAME, org/name of the hub, or a denoiser's folder."
Component = Annotated[str | None, typer.Option(help="unet or transformer; default: as the base has it.")]


@app.command(
    epilog=example(
        "visionpeft convert runs/ink/adapter --to diffusers-lora --base run:small-sd -o ink.safetensors",
        "visionpeft convert found.safetensors --to visionpeft --base sd15/ -o style",
        "… --to kohya --energy 0.99",
    )
)
def convert(
    source: Annotated[Path, typer.Argument(metavar="FILE_OR_FOLDER", help="An adapter, of ours or of another tool.")],
    to: Annotated[str, typer.Option("--to", "-t", help="visionpeft, diffusers-lora, peft, kohya or lycoris.")],
    base: Annotated[str, typer.Option("--base", "-b", metavar="PIPELINE", help=BASE)],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: beside the source.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="At most this many components a layer.")] = None,
    energy: Annotated[float | None, typer.Option(help="Or: a share of the squared singular values, 0 to 1.")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Leave out what the format cannot say, and list it.")] = False,
    licence: Annotated[str | None, typer.Option(help="Of the base; default: as its README.md says.")] = None,
    component: Component = None,
    layers: Annotated[bool, typer.Option("--layers", help="Print every layer, not the worst ten.")] = False,
) -> None:
    """Write an adapter in the format of another tool, or read one of another tool into a folder of ours.

    LoRA keeps its factors. What is not LoRA becomes, layer by layer, the best product of two thin factors by its
    singular values: with all of them but rounding, unless --rank or --energy asks for fewer. The errors are printed.
    What was written for another tool is loaded by that tool and compared before it takes its place.
    """
    from visionpeft.cli.printing_exchange import print_converted
    from visionpeft.export.exchange.command import convert_files

    done = convert_files(
        source,
        to,
        base,
        output,
        component=component,
        rank=rank,
        energy=energy,
        drop=drop,
        licence=licence,
    )
    print_converted(done, every=layers)


@formats.command(
    "check", epilog=example("visionpeft formats check style.safetensors", "… style.safetensors --base run:small-sd")
)
def check_format(
    file: Annotated[Path, typer.Argument(metavar="FILE_OR_FOLDER", help="An adapter, of ours or of another tool.")],
    base: Annotated[
        str | None, typer.Option("--base", "-b", metavar="PIPELINE", help=f"Compare names and shapes with it. {BASE}")
    ] = None,
    component: Component = None,
) -> None:
    """Say what an adapter file is, which tools load it, and what would be left out."""
    from visionpeft.cli.printing_exchange import print_checked
    from visionpeft.export.exchange import check
    from visionpeft.export.exchange.base import open_base

    opened = open_base(base, component) if base is not None else None
    found = check(file) if opened is None else check(file, opened.denoiser, opened.component)
    print_checked(found)


@formats.command("list", epilog=example("visionpeft formats list"))
def list_formats() -> None:
    """List the formats that adapters can be written in and read from."""
    from visionpeft.cli.printing import print_pairs
    from visionpeft.export.exchange import TARGETS

    print_pairs(TARGETS)
