"""What a report says of a classifier: its confusions, and pictures it is surest of."""

from __future__ import annotations

from html import escape

import torch

from visionpeft.report.content import Content
from visionpeft.report.markup import percent, picture, section, table, tag

MANY_CLASSES = 40
"""Beyond this a confusion matrix is unreadable and the most frequent confusions are listed instead."""


def sections(content: Content) -> str:
    """The sections that only classification has."""
    pooled = f"{content.result.main.label}, all seeds added."
    return "".join(
        (
            section("Confusion matrix", confusion(content), lead=pooled),
            section("Surest and right", examples(content, right=True)),
            section("Surest and wrong", examples(content, right=False), lead="Struck out: what the model said."),
        )
    )


def confusion(content: Content) -> str:
    """Truth by prediction as a shaded table, or the most frequent confusions of many classes."""
    counts = torch.stack([found.confusion() for found in content.tested(content.result.main.label)]).sum(0)
    names = [escape(name) for name in content.classes]
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    if len(names) > MANY_CLASSES:
        off = [
            (int(counts[i, j]), i, j) for i in range(len(names)) for j in range(len(names)) if i != j and counts[i, j]
        ]
        worst = sorted(off, reverse=True)[:20]
        rows = [(names[i], names[j], f"{count}", percent(float(shares[i, j]))) for count, i, j in worst]
        return table(("truth", "taken for", "times", "of the class"), rows, numeric=(2, 3))
    lines = []
    for i, name in enumerate(names):
        cells = [_shaded(int(counts[i, j]), float(shares[i, j]), i == j) for j in range(len(names))]
        lines.append(tag("tr", tag("th", name, scope="row"), *cells))
    head = tag("tr", tag("th", "truth ↓ prediction →"), *(tag("th", tag("span", name), scope="col") for name in names))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *lines), class_="confusion"), class_="scroll")


def examples(content: Content, right: bool) -> str:
    """Pictures the model is surest of, right or wrong."""
    chosen = [example for example in content.pictures["examples"] if (example["truth"] == example["guess"]) is right]
    names = content.classes
    figures = []
    for example in chosen:
        truth, guess = escape(names[example["truth"]]), escape(names[example["guess"]])
        words = truth if right else f"{tag('del', guess)} {truth}"
        caption = tag("figcaption", words, " ", tag("small", percent(example["confidence"], 0)))
        image = f'<img alt="{truth}" src="{picture(content.folder / example["file"])}">'
        figures.append(tag("figure", image, caption))
    if not figures:
        return tag("p", "None." if not right else "None was right.")
    return tag("div", *figures, class_="examples")


def _shaded(count: int, share: float, diagonal: bool) -> str:
    ink = "var(--good)" if diagonal else "var(--bad)"
    strength = 0 if not count else 12 + 68 * share if diagonal else 15 + 85 * min(1.0, 3 * share)
    style = f"background: color-mix(in srgb, {ink} {strength:.0f}%, transparent)"
    return tag("td", str(count) if count else "", style=style)
