"""Opening a finished run again: its recipe, and its main entry's model with the trained weights in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from visionpeft.errors import UserError
from visionpeft.recipe import Entry, Recipe, entries, load_recipe
from visionpeft.runs import folder as folders
from visionpeft.runs.kinds import Draw, Stages
from visionpeft.runs.result import RunResult
from visionpeft.runs.trial import TrialSpec, restored


@dataclass(frozen=True)
class OpenedRun:
    """A finished run: ``recipe`` is that of the chosen entry, ``stages`` its adapted and trained model."""

    result: RunResult
    recipe: Recipe
    spec: TrialSpec
    stages: Stages


def open_run(folder: str | Path, label: str | None = None, seed: int | None = None) -> OpenedRun:
    """Open a run folder at an entry (default: the main one) and a seed (default: the first).

    Raises:
        UserError: it is not a finished run, the entry or seed is not in it, or its files are damaged.
    """
    result = RunResult.load(folder)
    entry = _entry(load_recipe(Path(folder) / folders.RECIPE), result.row(label).label if label else result.main.label)
    seeds = [trial.seed for trial in result.trials if trial.entry == entry.label]
    if seed is not None and seed not in seeds:
        raise UserError(f"seed {seed} is not in {folder}; it has {', '.join(map(str, seeds))}")
    trial = next(t for t in result.trials if t.entry == entry.label and t.seed == (seeds[0] if seed is None else seed))
    spec = TrialSpec(entry, Draw(trial.seed, trial.fold), trial.lr, Path(folder))
    return OpenedRun(result, entry.recipe, spec, restored(spec))


def _entry(recipe: Recipe, label: str) -> Entry:
    found = {entry.label: entry for entry in entries(recipe)}
    if label not in found:
        raise UserError(f"{label!r} has no trained weights; entries: {', '.join(found)}")
    return found[label]
