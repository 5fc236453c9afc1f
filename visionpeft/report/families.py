"""Which entries belong together, and how each is drawn: one colour an entry, or one a family where there are many."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from visionpeft.recipe import Entry
from visionpeft.report.content import Content

PALETTE = ("#4c6ef5", "#e8743b", "#1f9e89", "#c2417c", "#9566c9", "#b58900", "#3c8dbc", "#8d6748", "#5f9e2f", "#d64545")
"""The main entry has the first colour; they read on white and on near-black."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Of another number than the colours, so that seventy families look different."""
LINES = ("-", "--", ":")
UNTRAINED = "#868e99"
"""Of entries that train nothing."""
FEW = 8
"""Up to so many entries each has its own colour and its name beside it."""
SIZES = ("rank", "ranks", "alpha")
"""Options that change the size of a method's adapter, not the method."""


@dataclass(frozen=True)
class Family:
    """Entries of the table that differ in the size of their adapter alone, smallest first."""

    title: str
    labels: tuple[str, ...]
    colour: str
    marker: str
    line: str

    @property
    def several(self) -> bool:
        return len(self.labels) > 1


@dataclass(frozen=True)
class Mark:
    """How an entry is drawn; the larger adapters of a family are drawn stronger."""

    colour: str
    marker: str
    line: str
    strength: float


def families(content: Content) -> list[Family]:
    """The families of what is trained, the main entry's first. Once the colours are used up, lines are dashed."""
    grouped: dict[str, list[Entry]] = {}
    for entry in content.entries:
        if content.result.row(entry.label).trainable:
            grouped.setdefault(_alike(entry), []).append(entry)
    groups = sorted(grouped.values(), key=lambda group: content.result.main.label not in [e.label for e in group])
    found = []
    for place, group in enumerate(groups):
        labels = tuple(sorted((e.label for e in group), key=lambda label: content.result.row(label).trainable))
        colour, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
        line = LINES[place // len(PALETTE) % len(LINES)]
        found.append(Family(_title([e.label for e in group]), labels, colour, marker, line))
    return found


def marks(content: Content) -> dict[str, Mark]:
    """Label → mark, the same in every plot."""
    rows = content.trained_rows
    flat = {row.label: Mark(UNTRAINED, "o", "-", 1.0) for row in rows if not row.trainable}
    if len(rows) <= FEW:
        labels = sorted((r.label for r in rows if r.trainable), key=lambda label: label != content.result.main.label)
        return {label: Mark(PALETTE[i], "o", "-", 1.0) for i, label in enumerate(labels)} | flat
    return flat | {
        label: Mark(family.colour, family.marker, family.line, 0.45 + 0.55 * (place + 1) / len(family.labels))
        for family in families(content)
        for place, label in enumerate(family.labels)
    }


def size_of(content: Content, label: str) -> str:
    """The rank of an entry as it stands in its recipe, or nothing."""
    options = next(entry for entry in content.entries if entry.label == label).recipe.method.options
    return next((str(options[key]) for key in SIZES[:2] if key in options), "")


def _alike(entry: Entry) -> str:
    """What an entry shares with the others of its family, as a key; what trains no adapter stands alone."""
    if not entry.recipe.method.adapts:
        return entry.label
    content = entry.recipe.content()
    shared = {key: content.get(key) for key in ("backbone", "targets", "train_also", "norm", "task", "data")}
    method = {key: value for key, value in content["method"].items() if key not in SIZES}
    return json.dumps([method, shared], sort_keys=True)


def _title(labels: list[str]) -> str:
    """What the labels begin with, without the word that leads to the rank."""
    if len(labels) == 1:
        return labels[0]
    length = next((i for i, letters in enumerate(zip(*labels, strict=False)) if len(set(letters)) > 1), None)
    shared = min(labels, key=len)[:length]
    return re.sub(r"[\s,·(=:-]*\b(r|rank)?[\s,·(=:-]*$", "", shared) or labels[0]
