"""What a report says of a segmentation: cases to look at, how Dice spreads over cases, volumes and classes."""

from __future__ import annotations

import math
from html import escape

import numpy as np

from visionpeft.metrics import Estimate
from visionpeft.metrics.scores import TERTILES
from visionpeft.report.case_figures import dice_distribution, dice_over_volume
from visionpeft.report.case_scores import CaseTable
from visionpeft.report.content import Content
from visionpeft.report.markup import drawing, number, section, table, tag
from visionpeft.report.viewer import viewer

COLUMNS = {"dice": "Dice", "iou": "IoU", "hd95": "HD95", "nsd": "NSD", "volume_error": "volume error"}


def sections(content: Content) -> str:
    """The sections that only segmentation has."""
    tables = {row.label: CaseTable.of(content, row.label) for row in content.trained_rows}
    main = content.result.main.label
    looked_at = f"Test cases of {main}, by Dice, from its first training."
    spread = "A dot is a test case (the mean of its seeds), the box holds the middle half, the diamond is the mean."
    return "".join(
        (
            section("Cases", viewer(content), lead=looked_at),
            section("Dice over cases", drawing(dice_distribution(content, tables), single=True), lead=spread),
            section("Dice and volume", _volume(content, tables), lead=_volume_lead(tables[main], main)),
            section("Classes", _classes(content, tables), lead=_classes_lead(tables[main], main)),
        )
    )


def _volume_lead(of_main: CaseTable, main: str) -> str:
    empty = int((of_main.tertile < 0).sum())
    left_out = f" {empty} cases without foreground are not in the plot." if empty else ""
    return f"Cases of {main}, and the mean Dice of the smaller, middle and larger third with its interval.{left_out}"


def _volume(content: Content, tables: dict[str, CaseTable]) -> str:
    """The plot, and a table of every entry by thirds."""
    of_main = tables[content.result.main.label]
    spans = [of_main.volume[of_main.tertile == place] for place in range(len(TERTILES))]
    ranges = [tag("small", _range(span, of_main.unit)) if len(span) else "" for span in spans]
    names = dict(zip(TERTILES, ranges, strict=True)) | {"empty": ""}
    rows = {label: found.by_tertile() for label, found in tables.items()}
    shown = [name for name in names if any(name in row for row in rows.values())]
    cells = [[_named(label, content), *(_estimate(row.get(name)) for name in shown)] for label, row in rows.items()]
    head = ("", *(f"{name} {names[name]}" for name in shown))
    listing = table(head, cells, numeric=range(1, len(head)), class_="results")
    return drawing(dice_over_volume(content, tables), single=True) + listing


def _range(volumes: np.ndarray, unit: str) -> str:
    cases = f"{len(volumes)} case{'s' if len(volumes) > 1 else ''}"
    return f"{number(volumes.min())} – {number(volumes.max())} {unit}, {cases}"


def _classes_lead(of_main: CaseTable, main: str) -> str:
    return (
        f"Of {main}, with intervals over cases and seeds. HD95 in mm where the data says how large a "
        f"{'voxel' if of_main.unit == 'ml' else 'pixel'} is; the volume error is relative and without its sign."
    )


def _classes(content: Content, tables: dict[str, CaseTable]) -> str:
    """Every figure of the main entry by class, and the Dice of every entry by class."""
    of_main = tables[content.result.main.label]
    rows = []
    for place, name in enumerate(of_main.classes):
        found = of_main.of_class(place)
        rows.append([escape(name), *(_estimate(found[key]) for key in COLUMNS)])
    figures = table(("", *COLUMNS.values()), rows, numeric=range(1, 1 + len(COLUMNS)), class_="results")
    if len(of_main.classes) < 2 or len(tables) < 2:
        return figures
    places = range(len(of_main.classes))
    by_entry = [
        [_named(label, content), *(_estimate(found.of_class(place)["dice"]) for place in places)]
        for label, found in tables.items()
    ]
    head = ("", *map(escape, of_main.classes))
    every = table(head, by_entry, numeric=range(1, len(head)), class_="results")
    return figures + tag("details", tag("summary", "Dice by class of every entry"), every)


def _named(label: str, content: Content) -> str:
    return tag("strong", escape(label)) if label == content.result.main.label else escape(label)


def _estimate(found: Estimate | None) -> str:
    """A value with its interval, if it has one (a single case has none); empty where it is undefined."""
    if found is None or math.isnan(found.value):
        return ""
    if found.low == found.high:
        return number(found.value)
    return f"{number(found.value)} {tag('small', f'{number(found.low)} – {number(found.high)}')}"
