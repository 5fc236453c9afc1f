"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from visionpeft.errors import UserError
from visionpeft.files import atomic_write

DESCRIPTION = """\
Time a training step with every method on every Linear and convolution of six networks: CPU seconds
relative to full fine-tuning and to the frozen floor, bytes kept for backward, merge time, file size.
clip-vit-b-16@CLASSES is a few-shot CLIP adapted on q, k and v of both towers, against CLIP-LoRA's attention.
Contestants take turns in one process; other load on the machine shows, so use an idle one.

example:  visionpeft bench --nets vit-tiny@96 --methods lora,cp_lora --rank 8 --json bench.json
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse ``argv``, measure, print a table; exits with code 2 where the input is wrong."""
    arguments = _parser().parse_args(argv)
    try:
        _measure(arguments)
    except UserError as error:
        print(f"visionpeft bench: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _parser() -> argparse.ArgumentParser:
    from visionpeft.bench.compare import DEFAULT_METHODS
    from visionpeft.bench.nets import DEFAULT_NETS, NETS

    parser = argparse.ArgumentParser("visionpeft bench", description=DESCRIPTION)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    nets = parser.add_argument("--nets", type=_names, default=list(DEFAULT_NETS), metavar="A@SIZE,B,…")
    nets.help = f"{', '.join(NETS)}; left out, all but the last"
    parser.add_argument("--methods", type=_names, default=list(DEFAULT_METHODS), metavar="A:OPTION=VALUE,B,…")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=11, help="rounds; the median counts (11)")
    parser.add_argument("--threads", type=int, help="threads of torch (its own choice)")
    parser.add_argument("--alone", action="store_true", help="leave out HF PEFT, LyCORIS and CLIP-LoRA")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, unrounded, to FILE")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _measure(arguments: argparse.Namespace) -> None:
    import torch
    from rich.progress import Progress

    from visionpeft.bench.compare import run, steps
    from visionpeft.bench.table import print_rows

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    compare = not arguments.alone
    with Progress(transient=True) as bar:
        task = bar.add_task("", total=steps(arguments.methods, compare, arguments.nets, arguments.repeats))
        rows = run(
            arguments.nets,
            arguments.methods,
            arguments.rank,
            arguments.repeats,
            compare,
            lambda net: bar.update(task, advance=1, description=net),
        )
    print_rows(rows)
    if arguments.json:
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads(), "processor": platform.machine()}
        content = {**machine, "rank": arguments.rank, "repeats": arguments.repeats, "rows": [asdict(r) for r in rows]}
        print(f"figures: {atomic_write(arguments.json, json.dumps(content, indent=2))}")
