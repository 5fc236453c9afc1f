"""Commands about this machine: ``doctor``, ``bench``."""

from __future__ import annotations

import typer

from visionpeft.cli.app import app, example


@app.command(epilog=example("visionpeft doctor"))
def doctor() -> None:
    """Say what visionpeft finds here: versions, devices, threads, which attention runs and why, the cache."""
    from visionpeft.backbones.cuda_attention import attention_backend
    from visionpeft.cli.printing import print_pairs
    from visionpeft.files import cache_dir
    from visionpeft.runs.environment import environment

    print_pairs({**environment(), "attention": attention_backend(), "cache": str(cache_dir())})


@app.command(
    epilog=example("visionpeft bench --help"),
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def bench(context: typer.Context) -> None:
    """Time every method against full fine-tuning, HF PEFT and LyCORIS."""
    from visionpeft.bench import main as measure

    measure(context.args)
