"""The parts of every page: headline, result table, tuning, plan, recipe, environment."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from visionpeft.report.content import Content
from visionpeft.report.families import FEW, Mark, marks
from visionpeft.report.markup import duration, interval, memory, merit, number, percent, table, tag
from visionpeft.runs.folder import RECIPE
from visionpeft.runs.kinds import Figure
from visionpeft.runs.result import Row


def subtitle(content: Content) -> str:
    """What was done, in one line."""
    recipe, seeds = content.recipe, len(content.recipe.seeds)
    data: Any = recipe.data  # of any task
    words = [
        f"{recipe.backbone.name} → {data.card}",
        _amount(data, recipe.sweep),
        f"{recipe.trainer.max_steps:,} steps",
    ]
    words += [f"{recipe.folds} folds"] if recipe.folds > 1 else []
    return escape(" · ".join([*words, f"{seeds} seed{'s' if seeds > 1 else ''}"]))


def headline(content: Content) -> str:
    """Cards with the figures one asks for first."""
    main, figure = content.result.main, content.figure
    bounds = f"95 %: {interval(*main.interval, figure)}"
    cards = [(merit(main.value, figure), f"{figure.title} of {main.label}", bounds)]
    rivals = [row for row in content.result.rows if row.gain is not None]
    if rivals:
        rival = _rival(rivals, main.swept)
        unit = "points against" if figure.percent else f"{figure.title} {'ahead of' if figure.lower else 'against'}"
        cards.append((figure.difference(rival.gain or 0), f"{unit} {rival.label}", _gain_interval(rival, figure)))
    cards.append((percent(main.share, 2), "of the weights trained", f"{main.trainable:,} of {main.total:,}"))
    cards.append((duration(main.seconds), "of one training", f"peak memory {memory(main.peak_memory)}"))
    return tag(
        "div",
        *(
            tag("div", tag("b", escape(big)), tag("span", escape(name)), tag("small", escape(more)), class_="card")
            for big, name, more in cards
        ),
        class_="cards",
    )


def results(content: Content) -> str:
    """The table against baselines, with a drawn interval a row; columns that no row fills are left out."""
    rows, palette, figure = content.result.rows, marks(content), content.figure
    ends = [bound for row in rows for bound in row.interval]
    low, high = min(ends), max(ends)
    columns = {
        "": [_marked(row, content) for row in rows],
        figure.title: [merit(row.value, figure) for row in rows],
        " ": [_whisker(row, low, high, palette.get(row.label)) for row in rows],
        "95 % interval": [interval(*row.interval, figure) for row in rows],
        f"{escape(content.result.main.label)} ahead by": [_gain(row, figure) for row in rows],
        "trained": [_trained(row) for row in rows],
        **_further_columns(rows, figure),
        "lr": ["" if row.lr is None else f"{row.lr:g}" for row in rows],
    }
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    numeric = [i for i, name in enumerate(filled) if name not in ("", " ", "95 % interval")]
    return table([*filled], zip(*filled.values(), strict=True), numeric, class_="results")


def sweep_table(content: Content) -> str:
    """The figure of merit of every method by the swept values, where there are several methods."""
    groups: dict[str, dict[Any, Row]] = {}
    for entry in content.entries:
        if entry.swept is not None:
            groups.setdefault(entry.group, {})[entry.swept] = content.result.row(entry.label)
    if len(groups) < 2:
        return ""
    (key, values), figure = next(iter(content.recipe.sweep.items())), content.figure
    lines = [
        (escape(group), *(merit(found[value].value, figure) if value in found else "" for value in values))
        for group, found in groups.items()
    ]
    return table((escape(key), *(escape(str(value)) for value in values)), lines, numeric=range(1, 1 + len(values)))


def _further_columns(rows: Sequence[Row], figure: Figure) -> dict[str, list[str]]:
    """Heading → a cell a row. Titles such as ``Dice by volume: small`` with the same beginning share a column."""
    groups: dict[str, list[str]] = {}
    for title in dict.fromkeys(title for row in rows for title in row.figures):
        groups.setdefault(title.partition(": ")[0], []).append(title)
    return {
        _heading(group, titles): [_together([row.figures.get(title) for title in titles], figure) for row in rows]
        for group, titles in groups.items()
    }


def _heading(group: str, titles: Sequence[str]) -> str:
    names = " · ".join(title.partition(": ")[2] for title in titles)
    return f"{group}: {names}" if names else group


def _together(values: Sequence[float | None], figure: Figure) -> str:
    cells = [_further(value, figure) for value in values]
    return " · ".join(cell or "–" for cell in cells) if any(cells) else ""


def parameters_lead(content: Content) -> str:
    """How the plot over parameters is read where its points are not named one by one."""
    if len(content.trained_rows) <= FEW:
        return ""
    return "Bars are 95 % intervals. Ranks of a method are joined by a line; the number beside a point is its rank."


def tuning(content: Content) -> str:
    """Learning rates tried on the validation split; a best one at the edge of its grid is pointed out."""
    rows = []
    for label, found in content.result.tuning.items():
        tried = ", ".join(
            f"{lr}: {merit(score, content.figure)}" if score > -1 else f"{lr}: diverged"
            for lr, score in found["val"].items()
        )
        edge = "the best lies at the edge of the grid: a wider one might do better" if found["at_edge"] else ""
        rows.append((escape(label), f"{found['lr']:g}", tried, edge))
    return (
        table(("", "chosen lr", f"{content.figure.title} on the validation split, by learning rate", ""), rows)
        if rows
        else ""
    )


def plans(content: Content) -> str:
    """Every entry's adapted weights with the path chosen and why; the main entry's is open."""
    blocks = []
    for row in content.trained_rows:
        plan = content.plan(row.label)
        sites = [
            (
                tag("code", escape(site["path"] or "(the layer)")),
                escape(site["kind"]),
                "×".join(map(str, site["shape"])),
                f"{site['parameters']:,}",
                escape(site["path_chosen"]),
                escape(site["why"]),
            )
            for site in plan["sites"]
        ]
        sites += [(tag("code", escape(path)), "refused", "", "", "", escape(why)) for path, why in plan["refused"]]
        notes = tag("p", escape("; ".join(plan["notes"])), class_="note")
        whole = (
            tag("p", escape(f"Trained whole: {_listed(plan['trained'])}."), class_="note") if plan["trained"] else ""
        )
        head = ("weight", "site", "shape", "parameters", "path", "why")
        listing = table(head, sites, numeric=(3,), class_="plan") if sites else ""
        size = f"{len(plan['sites'])} sites, {row.adapter:,} adapter parameters"
        opened = {"open": ""} if row.label == content.result.main.label and len(sites) <= 24 else {}
        blocks.append(
            tag("details", tag("summary", escape(row.label), tag("small", size)), notes, whole, listing, **opened)
        )
    return "".join(blocks)


def recipe(content: Content) -> str:
    """The resolved recipe."""
    text = (content.folder / RECIPE).read_text(encoding="utf-8")
    return tag("details", tag("summary", f"sha256 {content.result.digest[:16]}…"), tag("pre", escape(text)))


def environment(content: Content) -> str:
    """What the run ran on."""
    pairs = content.result.environment.items()
    return tag("dl", *(tag("div", tag("dt", escape(k)), tag("dd", escape(v))) for k, v in pairs))


def _rival(rows: Sequence[Row], swept: Any) -> Row:
    """What the headline compares with: training the head alone, or else the first that saw as much as the main one."""
    alike = [row for row in rows if row.swept == swept] or rows
    return next((row for row in rows if row.label.replace("-", " ").startswith("head only")), alike[0])


def _amount(data: Any, sweep: dict[str, list[Any]]) -> str:
    """How much a training sees."""
    if shots := sweep.get("data.shots"):
        return f"{min(shots)} to {max(shots)} shots a class"
    if getattr(data, "shots", None):
        return f"{data.shots} shots a class"
    for key in ("train_cases", "train_pictures"):
        if getattr(data, key, None):
            return f"{getattr(data, key)} training {key.partition('_')[2]}"
    return "the whole training split"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _marked(row: Row, content: Content) -> str:
    """The row's label; the main entry's stands out."""
    return tag("strong", escape(row.label)) if row is content.result.main else escape(row.label)


def _trained(row: Row) -> str:
    return f"{row.trainable:,} {tag('small', percent(row.share, 2))}" if row.trainable else ""


def _further(value: float | None, figure: Figure) -> str:
    """A further figure; undefined ones stay empty."""
    if value is None or math.isnan(value):
        return ""
    return percent(value) if figure.percent else number(value)


def _gain(row: Row, figure: Figure) -> str:
    small = tag("small", _gain_interval(row, figure).removeprefix("95 %: "))
    return "" if row.gain is None else f"{figure.difference(row.gain)} {small}"


def _gain_interval(row: Row, figure: Figure) -> str:
    low, high = row.gain_interval or (0.0, 0.0)
    return f"95 %: {figure.difference(low)} – {figure.difference(high)}"


def _whisker(row: Row, low: float, high: float, mark: Mark | None) -> str:
    """A dot with its interval on the scale that all rows share."""
    span, colour = max(high - low, 1e-9), mark.colour if mark else "currentColor"
    x, a, b = (4 + 112 * (value - low) / span for value in (row.value, *row.interval))
    line = f'<line x1="{a:.1f}" x2="{b:.1f}" y1="8" y2="8" stroke="{colour}" stroke-width="3" opacity=".35"/>'
    dot = f'<circle cx="{x:.1f}" cy="8" r="4" fill="{colour}"/>'
    return f'<svg class="whisker" viewBox="0 0 120 16" aria-hidden="true">{line}{dot}</svg>'
