"""The parts of the page: headline, result table, confusion matrix, examples, tuning, plan, recipe, environment."""

from __future__ import annotations

from html import escape

from visionpeft.report.content import Content
from visionpeft.report.figures import colours
from visionpeft.report.markup import duration, interval, memory, percent, picture, table, tag
from visionpeft.runs.folder import RECIPE
from visionpeft.runs.result import Row

MANY_CLASSES = 40
"""Beyond this a confusion matrix is unreadable and the most frequent confusions are listed instead."""


def subtitle(content: Content) -> str:
    """What was done, in one line."""
    recipe, seeds = content.recipe, len(content.recipe.seeds)
    shots = f"{recipe.data.shots} shots a class" if recipe.data.shots else "the whole training split"
    words = [f"{recipe.backbone.name} → {recipe.data.card}", shots, f"{recipe.trainer.max_steps:,} steps"]
    return escape(" · ".join([*words, f"{seeds} seed{'s' if seeds > 1 else ''}"]))


def headline(content: Content) -> str:
    """Cards with the figures one asks for first."""
    main = content.result.main
    cards = [(percent(main.top1), f"top-1 of {main.label}", f"95 %: {interval(*main.interval)}")]
    rivals = [row for row in content.result.rows if row.gain is not None]
    if rivals:
        rival = next((row for row in rivals if row.label.replace("-", " ").startswith("head only")), rivals[0])
        cards.append((f"{100 * (rival.gain or 0):+.1f}", f"points against {rival.label}", _gain_interval(rival)))
    cards.append((percent(main.share, 2), "of the weights trained", f"{main.trainable:,} of {main.total:,}"))
    cards.append((duration(main.seconds), "of training a seed", f"peak memory {memory(main.peak_memory)}"))
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
    rows, palette = content.result.rows, colours(content)
    ends = [bound for row in rows for bound in row.interval]
    low, high = min(ends), max(ends)
    columns = {
        "": [_marked(row, content) for row in rows],
        "top-1": [percent(row.top1) for row in rows],
        " ": [_whisker(row, low, high, palette.get(row.label, "currentColor")) for row in rows],
        "95 % interval": [interval(*row.interval) for row in rows],
        f"{escape(content.result.main.label)} ahead by": [_gain(row) for row in rows],
        "top-5": ["" if row.top5 is None else percent(row.top5) for row in rows],
        "ECE": ["" if row.ece is None else percent(row.ece) for row in rows],
        "lr": ["" if row.lr is None else f"{row.lr:g}" for row in rows],
        "trained": [_trained(row) for row in rows],
    }
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    numeric = [i for i, name in enumerate(filled) if name not in ("", " ", "95 % interval")]
    return table([*filled], zip(*filled.values(), strict=True), numeric, class_="results")


def confusion(content: Content) -> str:
    """Truth by prediction as a shaded table, or the most frequent confusions of many classes."""
    counts, names = content.confusion(), [escape(name) for name in content.classes]
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
    chosen = [example for example in content.examples if (example["truth"] == example["guess"]) is right]
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


def tuning(content: Content) -> str:
    """Learning rates tried on the validation split; a best one at the edge of its grid is pointed out."""
    rows = []
    for label, found in content.result.tuning.items():
        tried = ", ".join(
            f"{lr}: {percent(score)}" if score > -1 else f"{lr}: diverged" for lr, score in found["val_top1"].items()
        )
        edge = "the best lies at the edge of the grid: a wider one might do better" if found["at_edge"] else ""
        rows.append((escape(label), f"{found['lr']:g}", tried, edge))
    return table(("", "chosen lr", "top-1 on the validation split, by learning rate", ""), rows) if rows else ""


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


def _listed(names: list[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _marked(row: Row, content: Content) -> str:
    """The row's label; the main entry's stands out."""
    return tag("strong", escape(row.label)) if row is content.result.main else escape(row.label)


def _trained(row: Row) -> str:
    return f"{row.trainable:,} {tag('small', percent(row.share, 2))}" if row.trainable else ""


def _gain(row: Row) -> str:
    small = tag("small", _gain_interval(row).removeprefix("95 %: "))
    return "" if row.gain is None else f"{100 * row.gain:+.1f} {small}"


def _gain_interval(row: Row) -> str:
    low, high = row.gain_interval or (0.0, 0.0)
    return f"95 %: {100 * low:+.1f} – {100 * high:+.1f}"


def _whisker(row: Row, low: float, high: float, colour: str) -> str:
    """A dot with its interval on the scale that all rows share."""
    span = max(high - low, 1e-9)
    x, a, b = (4 + 112 * (value - low) / span for value in (row.top1, *row.interval))
    line = f'<line x1="{a:.1f}" x2="{b:.1f}" y1="8" y2="8" stroke="{colour}" stroke-width="3" opacity=".35"/>'
    dot = f'<circle cx="{x:.1f}" cy="8" r="4" fill="{colour}"/>'
    return f'<svg class="whisker" viewBox="0 0 120 16" aria-hidden="true">{line}{dot}</svg>'


def _shaded(count: int, share: float, diagonal: bool) -> str:
    ink = "var(--good)" if diagonal else "var(--bad)"
    strength = 0 if not count else 12 + 68 * share if diagonal else 15 + 85 * min(1.0, 3 * share)
    style = f"background: color-mix(in srgb, {ink} {strength:.0f}%, transparent)"
    return tag("td", str(count) if count else "", style=style)
