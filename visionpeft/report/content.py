"""What a report is drawn from: the files of a run folder, read and checked once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from visionpeft.recipe import Entry, Recipe, entries, load_recipe
from visionpeft.runs import folder as folders
from visionpeft.runs.kinds import Figure, kind_of
from visionpeft.runs.result import Row, RunResult, Trial


@dataclass(frozen=True)
class Content:
    """A finished run as the report sees it."""

    folder: Path
    result: RunResult
    recipe: Recipe

    @classmethod
    def read(cls, folder: str | Path) -> Content:
        """Read a run folder.

        Raises:
            UserError: it is no run folder, or a file in it is damaged.
        """
        folder = Path(folder)
        return cls(folder, RunResult.load(folder), load_recipe(folder / folders.RECIPE))

    @property
    def figure(self) -> Figure:
        """The figure of merit."""
        return kind_of(self.recipe).figure

    @cached_property
    def entries(self) -> list[Entry]:
        return entries(self.recipe)

    @cached_property
    def trained_rows(self) -> list[Row]:
        """Rows that trained something, in the table's order."""
        return [row for row in self.result.rows if row.kind != "baseline"]

    @cached_property
    def pictures(self) -> dict[str, Any]:
        """What the run kept to be looked at: ``classes``, and what its task describes there."""
        return folders.read_json(self.folder / "examples.json")

    @cached_property
    def classes(self) -> list[str]:
        return self.pictures["classes"]

    def trials(self, label: str) -> list[Trial]:
        """One trial a seed (and fold) of an entry."""
        return [trial for trial in self.result.trials if trial.entry == label]

    def histories(self, label: str, figure: str) -> list[tuple[list[int], list[float]]]:
        """Steps and values of a logged figure, one pair a seed."""
        found = []
        for trial in self.trials(label):
            rows = folders.read_json(self.folder / trial.folder / "history.json")
            points = [(row["step"], row[figure]) for row in rows if figure in row]
            found.append(([step for step, _ in points], [value for _, value in points]))
        return found

    def plan(self, label: str) -> dict[str, Any]:
        """The sites of an entry, what was refused, and the notes on loaded weights."""
        slug = next(entry.slug for entry in self.entries if entry.label == label)
        return folders.read_json(self.folder / "plans" / f"{slug}.json")

    def tested(self, label: str) -> list[Any]:
        """What testing left of an entry, one a seed: the folds of a cross-validation are joined."""
        kind, by_seed = kind_of(self.recipe), {}
        for trial in self.trials(label):
            by_seed.setdefault(trial.seed, []).append(kind.read(self.folder / trial.folder / folders.TESTED))
        return [kind.joined(folds) for folds in by_seed.values()]
