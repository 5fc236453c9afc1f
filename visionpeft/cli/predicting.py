"""The command ``predict``: a finished run on new files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visionpeft.cli.app import app, example

if TYPE_CHECKING:
    from visionpeft.predict.inputs import Input
    from visionpeft.predict.labels import Labels
    from visionpeft.predict.masks import Outcome
    from visionpeft.runs.finished import OpenedRun


@app.command(epilog=example("visionpeft predict runs/tissue scans/ 'more/*.nii.gz' --output masks --overlays"))
def predict(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Files, folders (with all below), globs.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the masks; for labels a .csv or .json file.")
    ] = None,
    entry: Annotated[str | None, typer.Option(help="Label of the entry; default: the main one.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: the first seed.")] = None,
    fold: Annotated[
        int | None, typer.Option(min=1, help="Of a cross-validation; default: the mean of the folds' probabilities.")
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also one map a class.")] = False,
    overlays: Annotated[bool, typer.Option("--overlays", help="Also pictures with the mask in colours.")] = False,
    window: Annotated[
        str | None, typer.Option(help="Sliding window, 96 or 96,96,64, for cases too large to predict at once.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classes a picture, of a classification run.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print labels as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Segment or classify new images with a finished run, prepared as its training images were.

    PNG, JPEG, TIFF, NIfTI and DICOM are read, for labels also WebP, GIF and PNM. Masks hold class numbers in the
    image's format and geometry (of DICOM: NIfTI). With a window, NIfTI volumes are predicted in slabs as deep as the
    window: memory then holds the mask, the file's own values (uncompressed NIfTI: not even these) and the float values
    and class maps of one slab.

    The data set that the run was trained on is not needed: its folder says how images are prepared.
    """
    from visionpeft.data.raw import IMAGE_SUFFIXES
    from visionpeft.errors import OptionError
    from visionpeft.predict.inputs import find_inputs
    from visionpeft.predict.scans import SUFFIXES
    from visionpeft.runs.finished import open_folds, open_run
    from visionpeft.runs.result import RunResult

    of_labels = RunResult.load(folder).metric in ("top1", "balanced")
    cases = find_inputs(images, IMAGE_SUFFIXES if of_labels else SUFFIXES)
    if fold is None:
        opened = open_folds(folder, entry, seed)
    else:
        opened = open_run(folder, entry, seed, fold - 1, needs_data=False)
    if of_labels:
        _labels(opened, cases, output, top, as_json)
        return
    if output is None:
        raise OptionError("masks need a folder: give --output")
    _masks(opened, cases, output, probabilities, overlays, window, quiet)


def _labels(opened: OpenedRun, cases: list[Input], output: Path | None, top: int, as_json: bool) -> None:
    import json

    from visionpeft.cli.printing import print_labels
    from visionpeft.predict.labels import check_format, classify, write_labels

    if output is not None:
        check_format(output)
    found: list[Labels] = [classify(opened, case, top) for case in cases]
    if output is not None:
        print(write_labels(output, found))
    elif as_json:
        print(json.dumps([labels.to_json() for labels in found], ensure_ascii=False))
    else:
        print_labels(found)
    _finish({str(labels.path): labels.error for labels in found})


def _masks(
    opened: OpenedRun,
    cases: list[Input],
    output: Path,
    probabilities: bool,
    overlays: bool,
    window: str | None,
    quiet: bool,
) -> None:
    from visionpeft.cli.printing import case_progress
    from visionpeft.predict.inputs import check_outputs
    from visionpeft.predict.masks import predict_case
    from visionpeft.predict.segmenter import Segmenter

    check_outputs(cases, output)
    segmenter = Segmenter(opened, _sides(window))
    outcomes: list[Outcome] = []
    with case_progress(len(cases), quiet) as begin:
        for case in cases:
            outcomes.append(predict_case(segmenter, case, output, probabilities, overlays, begin(case.name)))
    done = sum(outcome.error is None for outcome in outcomes)
    print(f"{done} of {len(cases)} cases written to {output}")
    _finish({outcome.case.name: outcome.error for outcome in outcomes})


def _sides(window: str | None) -> tuple[int, ...] | None:
    from visionpeft.errors import OptionError

    if window is None:
        return None
    try:
        return tuple(int(side) for side in window.split(","))
    except ValueError:
        raise OptionError(f"--window is a number or numbers with commas, as 96 or 96,96,64; found {window!r}") from None


def _finish(errors: dict[str, str | None]) -> None:
    """Report the cases that failed, if any, and end with exit code 2."""
    from visionpeft.cli.printing import print_failures

    if found := {path: error for path, error in errors.items() if error is not None}:
        print_failures(found)
        raise SystemExit(2)
