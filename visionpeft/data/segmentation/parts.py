"""Which cases a run trains, tunes and tests on: the card's parts or the folds of a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from visionpeft.data.segmentation.cards import SegmentationSplit
from visionpeft.data.segmentation.cases import CaseTable
from visionpeft.data.splits import hashed_order
from visionpeft.data.tables import PARTS
from visionpeft.errors import DataError, OptionError

TEST_SEED = 0  # the test cases never depend on a run's seed


def choose(
    table: CaseTable,
    rule: SegmentationSplit,
    counts: Mapping[str, int | None],
    seed: int,
    folds: int | None = None,
    fold: int | None = None,
) -> dict[str, np.ndarray]:
    """Positions of the cases of each part, ascending.

    Args:
        table: the data set.
        rule: its card's ``split``.
        counts: how many cases of each part; None takes all.
        seed: chooses the cases where fewer than all are taken.
        folds, fold: see :class:`visionpeft.data.segmentation.module.SegmentationData`.

    Raises:
        OptionError: a part has fewer cases than asked for.
        DataError: fewer groups than folds.
    """
    if folds is None or fold is None:
        parts = {part: table.indices(part) for part in PARTS}
    else:
        parts = _fold_parts(table, rule, folds, fold)
    return {
        part: _draw(table, parts[part], counts[part], TEST_SEED if part == "test" else seed, part) for part in PARTS
    }


def _draw(table: CaseTable, pool: np.ndarray, count: int | None, seed: int, part: str) -> np.ndarray:
    if count is None:
        return pool
    if count > len(pool):
        raise OptionError(f"{part}_cases is {count}, but the {part} part has {len(pool)} case(s)")
    return np.sort(pool[hashed_order([table.keys[i] for i in pool], seed)[:count]])


def _fold_parts(table: CaseTable, rule: SegmentationSplit, folds: int, fold: int) -> dict[str, np.ndarray]:
    pooled = np.flatnonzero(np.isin(table.split, rule.cv))
    number = deal([table.groups[i] for i in pooled], folds, rule.seed)
    test, rest = pooled[number == fold], pooled[number != fold]
    if "val" not in rule.cv:
        return {"train": rest, "val": table.indices("val"), "test": test}
    share = len(table.indices("val")) / len(table)
    groups = [table.groups[i] for i in rest]
    chosen = draw_groups(groups, round(share * len(pooled)), rule.seed, "val part of the training folds")
    val = rest[chosen]
    return {"train": np.setdiff1d(rest, val), "val": val, "test": test}


def deal(groups: Sequence[str], folds: int, seed: int) -> np.ndarray:
    """The fold ``(N,)`` of each case: whole groups, the largest first, each to the fold with the fewest cases yet.

    Raises:
        DataError: fewer groups than folds.
    """
    names, sizes = np.unique(np.array(groups), return_counts=True)
    if len(names) < folds:
        raise DataError(f"{folds} folds need at least as many groups (patients); there are {len(names)}")
    order = hashed_order(names.tolist(), seed)
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled, place = np.zeros(folds, int), {}
    for position in order:
        place[names[position]] = int(filled.argmin())
        filled[filled.argmin()] += sizes[position]
    return np.array([place[group] for group in groups], dtype=np.int64)


def draw_groups(groups: Sequence[str], wanted: int, seed: int, purpose: str) -> np.ndarray:
    """Positions of whole groups, taken in hashed order until at least ``max(1, wanted)`` cases are drawn.

    Raises:
        DataError: nothing would be left.
    """
    names = sorted(set(groups))
    if len(names) < 2:
        raise DataError(f"{len(names)} group(s) of cases cannot be divided to give the {purpose}")
    chosen: list[int] = []
    for position in hashed_order(names, seed)[:-1]:
        if len(chosen) >= max(1, wanted):
            break
        chosen += [i for i, group in enumerate(groups) if group == names[position]]
    return np.array(sorted(chosen), dtype=np.int64)
