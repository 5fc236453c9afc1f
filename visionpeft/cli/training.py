"""Commands around a run: ``run``, ``eval``, ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from visionpeft.cli.app import app, example

Changes = Annotated[
    list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a key of the recipe; repeatable.")
]


@app.command(epilog=example("visionpeft run classify/quickstart --set method.rank=16 --output runs/r16"))
def run(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE_OR_RUN", help="A recipe file or name; to resume also a run folder.")
    ],
    changes: Changes = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The run folder to make; default runs/<name>.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an unfinished run, bit for bit on a CPU.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Adapt, train, evaluate, report and merge what a recipe describes."""
    from visionpeft.cli.printing import print_result
    from visionpeft.pipeline import run as run_recipe

    print_result(run_recipe(source, changes or [], output=output, resume=resume, progress=not quiet))


@app.command(name="eval", epilog=example("visionpeft eval runs/quickstart --part val --seed 1"))
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    entry: Annotated[str | None, typer.Option(help="Label of the entry; default: the main one.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: the first seed.")] = None,
    part: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Test the saved weights of a run again, and print top-1, top-5 and calibration error with intervals."""
    from visionpeft.cli.printing import print_estimates
    from visionpeft.data.tables import PARTS
    from visionpeft.errors import unknown
    from visionpeft.runs.finished import open_run
    from visionpeft.runs.trial import test

    if part not in PARTS:
        raise unknown("part", part, PARTS)
    opened = open_run(folder, entry, seed)
    title = f"{opened.spec.entry.label}, {opened.spec.draw.title}, {part} split"
    print_estimates(title, test(opened.spec, opened.stages, part).summary(), as_json)


@app.command(epilog=example("visionpeft report runs/quickstart"))
def report(folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")]) -> None:
    """Draw report.html of a run folder again."""
    from visionpeft.report import write_report

    print(write_report(folder))
