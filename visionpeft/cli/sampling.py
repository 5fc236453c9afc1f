"""Commands that draw with a diffusion pipeline: ``sample``, ``demo``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from visionpeft.cli.app import app, example

if TYPE_CHECKING:
    from visionpeft.predict.sampler import Sampler

Source = Annotated[
    str, typer.Argument(metavar="RUN_OR_PIPELINE", help="A finished run, a pipeline folder, run:NAME, org/name.")
]
Adapters = Annotated[
    list[str] | None,
    typer.Option(
        "--adapter",
        "-a",
        metavar="[NAME=]PATH[:STRENGTH]",
        help="An adapter folder, a run, another tool's LoRA file; repeatable, or with commas. A run's own: its name.",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="A folder; of one picture also a .png.")]
Entry = Annotated[str | None, typer.Option(help="Label of a run's entry; default: the main one.")]
Device = Annotated[str | None, typer.Option(help="Default: cuda where there is one, else cpu.")]


@app.command(
    epilog=example(
        'visionpeft sample run:ddpm-emoji --prompt "red apple" --count 4 --grid -o apples',
        'visionpeft sample runs/emoji-style -p "smiling cat" -a runs/emoji-style:0.8,subject/adapter:0.5 -o cats',
    )
)
def sample(
    source: Source,
    prompt: Annotated[list[str] | None, typer.Option("--prompt", "-p", help="Or a class's name; repeatable.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="A text file with a prompt a line.")] = None,
    adapter: Adapters = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture of a prompt; the next has the next.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="Pictures a prompt.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Default: a run's own, else 25.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="Default: a run's own, else as usual for the pipeline.")
    ] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Pixels a side; default: as trained.")] = None,
    negative: Annotated[str | None, typer.Option(help="A prompt to move away from.")] = None,
    entry: Entry = None,
    device: Device = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also grid.png: prompts down, seeds across.")] = False,
    output: Output = Path("samples"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Draw pictures with a finished diffusion run or any pipeline, with adapters mixed by strength.

    Each PNG says inside what it was drawn with: prompt, seed, adapters and strengths, base, steps, guidance. A picture
    depends on its own seed, not on what is drawn beside it.
    """
    from visionpeft.predict.drawings import Drawing, check_place, write_drawings, write_grid
    from visionpeft.predict.warned import warned

    asked, mixture = _asked(prompt, prompts), parsed(adapter or [])
    check_place(output, max(len(asked), 1) * count, grid)
    with warned(tell):
        sampler = opened(source, mixture, entry, device)
        texts = sampler.prompts(asked)
        drawn = [(text, seed + number) for text in texts for number in range(count)]
        words, seeds = [text for text, _ in drawn], [own for _, own in drawn]
        options = {"steps": steps, "guidance": guidance, "size": size}
        with step_progress("drawing", quiet) as progress:
            pictures = sampler.draw(words, seeds, negative=negative, progress=progress, **options)
    told = {"base": source, "entry": entry, "adapters": sampler.mixture(), "negative": negative}
    drawings = [Drawing(*one) for one in zip(pictures, words, seeds, strict=True)]
    print(*write_drawings(output, drawings, told | sampler.settings(**options)), sep="\n")
    if grid:
        print(write_grid(output, drawings, ""))


def opened(source: str, mixture: list[tuple[str | None, str, float]], entry: str | None, device: str | None) -> Sampler:
    """The sampler with its adapters."""
    from visionpeft.predict.sampler import Sampler

    sampler = Sampler(source, entry=entry, device=device)
    for name, path, strength in mixture:
        sampler.add(path, name, strength)
    return sampler


def parsed(words: list[str]) -> list[tuple[str | None, str, float]]:
    """``[NAME=]PATH[:STRENGTH]``, each word with commas between several, as (name, path, strength).

    Raises:
        OptionError: a strength is no finite number.
    """
    return [_parsed(part.strip()) for word in words for part in word.split(",") if part.strip()]


def _parsed(word: str) -> tuple[str | None, str, float]:
    import math

    from visionpeft.errors import OptionError

    name, equals, rest = word.partition("=")
    path, colon, strength = (rest if equals else word).rpartition(":")
    if not colon:
        return (name if equals else None), strength, 1.0
    try:
        number = float(strength)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise OptionError(f"--adapter {word}: the strength is {strength!r}, but it must be a number, as in {path}:0.8")
    return (name if equals else None), path, number


def _asked(prompt: list[str] | None, file: Path | None) -> list[str]:
    from visionpeft.errors import DataError

    if file is None:
        return prompt or []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"--prompts {file} cannot be read: {error}") from error
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise DataError(f"--prompts {file} holds no prompt")
    return [*(prompt or []), *found]


@contextmanager
def step_progress(title: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr. Yields what to call with the steps done and their number."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, steps: bar.update(task, completed=done, total=steps)


def tell(message: str) -> None:
    """A line on stderr."""
    print(f"visionpeft: {message}", file=sys.stderr)


@app.command(
    epilog=example(
        "visionpeft demo runs/emoji-style", "visionpeft demo run:ddpm-emoji -a style/adapter:0.8 --port 7861"
    )
)
def demo(
    source: Source,
    adapter: Adapters = None,
    entry: Entry = None,
    device: Device = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Default: the first free one from 7860 on.")
    ] = None,
) -> None:
    """Serve a page to try prompts, adapter strengths and seeds side by side with the base, to this machine alone."""
    from visionpeft.predict.demo import serve
    from visionpeft.predict.warned import warned

    mixture = parsed(adapter or [])
    with warned(tell):
        serve(opened(source, mixture, entry, device), port)
