"""Writes the tables of README.md from the code itself: ``make docs``. With ``--check`` it writes nothing and tells.

Each table stands between ``<!-- NAME:begin -->`` and ``<!-- NAME:end -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch
import typer
from torch import nn

import visionpeft as vp
from visionpeft.algebra.method import BlockMethod, Options
from visionpeft.errors import SiteError, UserError

ROOT = Path(__file__).resolve().parents[1]


class Table(nn.Module):
    """A bare parameter, such as a position table or a projection that is only multiplied with."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(32, 48))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.table


HOSTS: dict[str, Callable[[], nn.Module]] = {
    "Linear": lambda: nn.Linear(32, 32),
    "Conv1d": lambda: nn.Conv1d(16, 16, 3),
    "Conv2d": lambda: nn.Conv2d(16, 16, 3),
    "Conv3d": lambda: nn.Conv3d(16, 16, 3),
    "1×1 convolution": lambda: nn.Conv2d(16, 16, 1),
    "grouped convolution": lambda: nn.Conv2d(16, 16, 3, groups=4),
    "depthwise convolution": lambda: nn.Conv2d(16, 16, 3, groups=16),
    "transposed convolution": lambda: nn.ConvTranspose2d(16, 16, 3),
    "Embedding": lambda: nn.Embedding(64, 32),
    "packed attention projections": lambda: nn.MultiheadAttention(32, 4),
    "bare parameter": Table,
}
TARGETS = {"packed attention projections": "attn.qkv[q,k,v]", "bare parameter": "table"}


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def shown(value: object) -> str:
    return "none" if value is None else str(value)


def trainable(method: type[Options], layer: nn.Module) -> str:
    """Trainable values with the default options, or a dash where the method refuses the layer."""
    try:
        return f"{vp.adapt(layer, method.name, targets=['']).trainable:,}"
    except UserError:
        return "—"


def methods_table() -> str:
    """Name, options with defaults, paper, and the trainable values on two layers."""
    rows = []
    for name, method in vp.methods().items():
        options = ", ".join(f"`{f.name}={shown(f.default)}`" for f in fields(method) if f.name != "dropout")
        counts = [trainable(method, nn.Linear(768, 768)), trainable(method, nn.Conv2d(64, 64, 3))]
        rows.append([f"`{name}`", method.paper, options, *counts])
    return markdown(["method", "paper", "options and defaults", "Linear 768²", "Conv2d 64→64, 3×3"], rows)


def refusals(method: str) -> dict[str, list[str]]:
    """Each reason that a method gives, with the layers it gives it for."""
    reasons: dict[str, list[str]] = {}
    for host, build in HOSTS.items():
        try:
            vp.adapt(build(), method, targets=[TARGETS.get(host, "")])
        except SiteError as error:
            reasons.setdefault(str(error).rpartition("': ")[2], []).append(host)
    return reasons


def sites_table() -> str:
    """What is refused, and why; every other pair of method and layer works."""
    weights = [name for name, method in vp.methods().items() if not issubclass(method, BlockMethod)]
    rows = [[f"`{name}`", ", ".join(hosts), reason] for name in weights for reason, hosts in refusals(name).items()]
    layers = ", ".join(HOSTS)
    return f"Layers: {layers}.\n\n" + markdown(["method", "refuses", "because"], rows)


def commands_table() -> str:
    from visionpeft.cli import app

    group = typer.main.get_command(app)
    commands = sorted(group.commands.items())  # pyright: ignore[reportAttributeAccessIssue]
    return markdown(
        ["command", ""],
        [[f"`visionpeft {name}`", command.get_short_help_str(200)] for name, command in commands],
    )


TABLES = {"methods": methods_table, "sites": sites_table, "commands": commands_table}


def renewed(text: str) -> str:
    """The text with every table between its markers made anew."""
    for name, make in TABLES.items():
        pattern = rf"(<!-- {name}:begin -->\n).*?(<!-- {name}:end -->)"
        text, found = re.subn(pattern, lambda match, make=make: f"{match[1]}{make()}\n{match[2]}", text, flags=re.S)
        assert found == 1, f"the markers of {name!r} stand {found} times in README.md"
    return text


def main() -> int:
    readme = ROOT / "README.md"
    before = readme.read_text()
    after = renewed(before)
    if "--check" in sys.argv:
        return int(before != after)
    readme.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
