"""What the commands print, as rich tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from visionpeft.data.tables import ImageTable
    from visionpeft.metrics import Estimate
    from visionpeft.metrics.scores import Scores
    from visionpeft.predict.labels import Labels
    from visionpeft.runs.coverage import Coverage
    from visionpeft.runs.kinds import Figure
    from visionpeft.runs.result import Row, RunResult


def console() -> Console:
    """A console as wide as the terminal, or 120 columns where output goes to a file."""
    found = Console()
    return found if found.is_terminal else Console(width=120)


def print_result(result: RunResult) -> None:
    """The table of a run (controls, adapted, what was compared) and the paths of what it made."""
    from visionpeft.recipe import load_recipe
    from visionpeft.runs.folder import RECIPE
    from visionpeft.runs.kinds import kind_of

    figure = kind_of(load_recipe(result.folder / RECIPE)).figure
    title = f"{result.folder.name}: {figure.title} on the test split"
    table = Table(title=title, title_justify="left", show_edge=False)
    compared = any(row.gain is not None for row in result.rows)
    ahead = [f"{result.main.label} is ahead by"] if compared else []
    table.add_column("")
    for name in (figure.title, "95 % interval", *ahead, "trained", "share", "time", "memory"):
        table.add_column(name, justify="right")
    for row in result.rows:
        cells = [row.label, figure.text(row.value), " – ".join(map(figure.text, row.interval))]
        style = "bold" if row.label == result.main.label else None
        table.add_row(*cells, *([_gain(row, figure)] if compared else []), *_cost(row), style=style)
    out = console()
    out.print(table)
    paths = {"report": result.report, "adapter": result.adapter, "merged": result.merged or result.merge_note}
    for name, value in {**paths, "parity": result.merge_note if result.merged else None}.items():
        if value:
            out.print(Text(f"{name:8} {value}"), soft_wrap=True)


def _gain(row: Row, figure: Figure) -> str:
    if row.gain is None or row.gain_interval is None:
        return ""
    low, high = map(figure.difference, row.gain_interval)
    return f"{figure.difference(row.gain)} [{low}, {high}]"


def _cost(row: Row) -> tuple[str, str, str, str]:
    """Trained weights, their share, seconds a seed, and peak memory."""
    memory = f"{row.peak_memory / 2**20:,.0f} MiB" if row.peak_memory else ""
    return f"{row.trainable:,}", f"{row.share:.2%}", f"{row.seconds:.0f} s" if row.trainable else "", memory


def print_estimates(title: str, estimates: Mapping[str, Estimate], as_json: bool) -> None:
    """Figures with their intervals, as a table or as JSON."""
    if as_json:
        print(json.dumps(_plain({name: vars(estimate) for name, estimate in estimates.items()})))
        return
    table = Table("", "value", "95 % interval", title=title, title_justify="left", show_edge=False)
    for name, e in estimates.items():
        table.add_row(name, _figure(name, e.value), f"{_figure(name, e.low)} – {_figure(name, e.high)}")
    console().print(table)


def print_scores(keys: Sequence[str], scores: Scores, as_json: bool) -> None:
    """Every case, then the means with their intervals, also by volume."""
    from visionpeft.metrics.scores import FIGURES
    from visionpeft.predict.scoring import scores_content

    if as_json:
        print(json.dumps(_plain(scores_content(keys, scores))))
        return
    table = Table("case", "class", title=f"{len(keys)} cases", title_justify="left", show_edge=False)
    for name in FIGURES:
        table.add_column(f"{name} ({scores.unit})" if name == "volume" else name, justify="right")
    for row, key in enumerate(keys):
        for column, label in enumerate(scores.classes):
            cells = [_figure(name, float(getattr(scores, name)[row, column])) for name in FIGURES]
            table.add_row(Text(key if column == 0 else ""), Text(label), *cells)
    console().print(table)
    print_estimates("mean over cases", scores.summary(), as_json=False)
    print_estimates("Dice by volume", {f"dice, {name}": e for name, e in scores.by_volume().items()}, as_json=False)


PERCENTAGES = ("top1", "top5", "ece")


def _figure(name: str, value: float) -> str:
    """A figure as people write it; an undefined one is a dash."""
    if value != value:
        return "–"
    return f"{value:.1%}" if name in PERCENTAGES else f"{value:.3f}"


def _plain(content: Any) -> Any:
    """NaN as null: JSON has no word for it."""
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and content != content else content


def print_pairs(pairs: Mapping[str, str]) -> None:
    """Two columns, the second wrapped."""
    table = Table.grid(padding=(0, 2))
    for name, value in pairs.items():
        table.add_row(Text(name, style="bold", no_wrap=True), Text(value))
    console().print(table)


def print_methods(registered: Mapping[str, type[Any]]) -> None:
    """Name, options with defaults and paper of every method."""
    table = Table("method", "options", "paper", show_edge=False, title_justify="left")
    for name, cls in registered.items():
        table.add_row(name, Text(", ".join(f"{key}={value}" for key, value in _options(cls).items())), Text(cls.paper))
    console().print(table)
    console().print(Text("`visionpeft methods NAME` explains one; dora(NAME) is DoRA over any additive method."))


def print_method(name: str, cls: type[Any]) -> None:
    """The documentation of one method, and its options."""
    import inspect

    print(f"{name}: {cls.paper}\n\n{inspect.cleandoc(cls.__doc__ or '')}\n")
    print_pairs({key: f"default {value}" for key, value in _options(cls).items()})


def _options(cls: type[Any]) -> dict[str, Any]:
    import dataclasses

    return {field.name: field.default for field in dataclasses.fields(cls)}


def print_coverage(found: Coverage) -> None:
    """A line a weight: site, path and reason, parameters; then the share that can be adapted and merged."""
    table = Table("weight", "site", "shape", "parameters", "path", "why", show_edge=False)
    for line in found.lines:
        shape, count = "×".join(map(str, line.shape)), f"{line.parameters:,}" if line.adapted else "–"
        cells = [line.path or "(the layer)", line.kind, shape, count, line.plan, line.why]
        table.add_row(*map(Text, cells), style=None if line.adapted else "dim")
    table.columns[0].overflow = "fold"  # a path cut short names nothing
    out = console()
    if not out.is_terminal:  # whole lines for files and pipes
        out = _wide_enough(table)
    out.print(table)
    out.print(Text(found.summary()), soft_wrap=True)


@contextmanager
def case_progress(cases: int, quiet: bool) -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """A progress bar over cases and the pieces of each, on stderr.

    Yields a function that begins a case by its name and returns what to call with the pieces done and their number.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as bar:
        all_cases, current = bar.add_task("cases", total=cases), bar.add_task("", total=1)
        begun = iter(range(cases))

        def begin(name: str) -> Callable[[int, int], None]:
            bar.update(all_cases, completed=next(begun))
            bar.reset(current, description=name)
            return lambda done, pieces: bar.update(current, completed=done, total=pieces)

        yield begin


def print_labels(found: Sequence[Labels]) -> None:
    """The classes of each picture with their probabilities."""
    table = Table("picture", "class", "probability", show_edge=False)
    for labels in found:
        for rank, (name, share) in enumerate(labels.best):
            table.add_row(Text(str(labels.path) if rank == 0 else ""), Text(name), f"{share:.1%}")
    console().print(table)


def print_failures(errors: Mapping[str, str]) -> None:
    """The cases without a result, and why, on stderr."""
    table = Table("failed", "why", show_edge=False, title=f"{len(errors)} failed", title_justify="left")
    for name, error in errors.items():
        table.add_row(Text(name, overflow="fold"), Text(error, overflow="fold"))
    out = Console(stderr=True)
    (out if out.is_terminal else _wide_enough(table, stderr=True)).print(table)


def _wide_enough(table: Table, stderr: bool = False) -> Console:
    """A console for files and pipes, in which no line of the table breaks."""
    return Console(stderr=stderr, width=max(120, Console(width=sys.maxsize).measure(table).maximum))


def print_counts(name: str, images: ImageTable) -> None:
    """Images a class and split."""
    import numpy as np

    from visionpeft.data.tables import PARTS

    table = Table("class", *PARTS, title=f"{name}: {len(images):,} images", title_justify="left", show_edge=False)
    for label, title in enumerate(images.classes):
        counts = [np.count_nonzero(images.labels[images.indices(part)] == label) for part in PARTS]
        table.add_row(Text(title), *(f"{count:,}" for count in counts))
    console().print(table)
