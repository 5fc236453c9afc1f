"""``run``: from a recipe to a finished run folder, stage by stage; every stage that is already done is skipped."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from visionpeft.data.splits import save_split
from visionpeft.errors import UserError
from visionpeft.export.merged import why_not_mergeable, write_merged
from visionpeft.export.published import publish
from visionpeft.files import atomic_write
from visionpeft.recipe import Entry, Recipe, check_methods, entries, load_recipe
from visionpeft.report import write_report
from visionpeft.runs import folder as folders
from visionpeft.runs import ranks
from visionpeft.runs.artifacts import write_plan, write_preparation, write_trained
from visionpeft.runs.environment import environment
from visionpeft.runs.kinds import Draw, Kind, kind_of
from visionpeft.runs.result import RunResult, Trial
from visionpeft.runs.stages import build, open_backbone, open_data
from visionpeft.runs.table import baseline_row, entry_row, with_gains
from visionpeft.runs.trial import TrialSpec, restored, test, train
from visionpeft.tasks.tune import Tuned, tune


@dataclass(frozen=True)
class _Trained:
    """An entry after training: one spec and trial a draw."""

    entry: Entry
    specs: list[TrialSpec]
    trials: list[Trial]
    tuned: Tuned | None


def run(
    source: str | Path | Mapping[str, Any] | Recipe,
    overrides: Iterable[str] = (),
    output: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> RunResult:
    """Adapt, train, evaluate, report and merge what a recipe describes.

    Args:
        source: a recipe file, a shipped recipe's name, plain data, or with ``resume`` also a run folder.
        overrides: ``key.path=value`` changes of the recipe.
        output: the run folder to make; default ``runs/<name>`` (then ``-2``, ``-3``, …). While it is being filled it
            is called ``<output>.partial``.
        resume: continue an unfinished run of the same recipe, bit for bit on a CPU; starts one if there is none.
        progress: show a progress bar on stderr.

    Raises:
        UserError: anything the user can mend. A run that failed before its first checkpoint leaves nothing behind.
    """
    recipe, folder = _locate(source, list(overrides), output, resume)
    if folder and not _is_partial(folder):
        return RunResult.load(folder)
    check_methods(recipe)
    kind_of(recipe).forget()
    if ranks.follows():
        _follow(recipe, ranks.leaders_folder(folders.partial_path(folders.final_path(recipe, output))))
    folder = folder or folders.new_run(recipe, output)
    ranks.lead(folder)
    with _leaving_nothing_behind(folder), folders.locked(folder):
        _fill(recipe, folder, progress)
    return RunResult.load(folders.finish(folder))


def _locate(source: Any, overrides: list[str], output: str | Path | None, resume: bool) -> tuple[Recipe, Path | None]:
    """The recipe and, with ``resume``, the folder of its run if there is one, finished or partial."""
    if isinstance(source, (str, Path)) and Path(source).is_dir():
        path = Path(source)
        if not resume or overrides:
            raise UserError(f"{path} is a run folder: continue it with --resume (and without --set)")
        return load_recipe(path / folders.RECIPE), path
    recipe = load_recipe(source, overrides)
    if not resume:
        return recipe, None
    final = folders.final_path(recipe, output)
    if (final / folders.RECIPE).is_file() and load_recipe(final / folders.RECIPE).digest == recipe.digest:
        return recipe, final
    return recipe, folders.find_partial(recipe, output)


def _follow(recipe: Recipe, folder: Path) -> NoReturn:
    """What the other processes of a distributed run do: the same trainings in the same order, and nothing else."""
    for entry in entries(recipe):
        _train(entry, _draws(recipe), folder, progress=False)
    ranks.part()
    raise SystemExit


def _fill(recipe: Recipe, folder: Path, progress: bool) -> None:
    listed, kind = entries(recipe), kind_of(recipe)
    _preflight(listed, recipe, folder)
    trained = [_train(entry, _draws(recipe), folder, progress) for entry in listed]
    ranks.part()
    found = {t.entry.label: _by_seed(kind, t.specs) for t in trained}
    controls = {name: [_control(kind, name, recipe, seed, folder) for seed in recipe.seeds] for name in recipe.controls}
    rows = [entry_row(kind, t.entry, t.trials, found[t.entry.label]) for t in trained]
    main = max((row for row in rows if row.kind == "main"), key=lambda row: row.val or 0.0)
    rows = [*(baseline_row(kind, name, tested, recipe.seeds) for name, tested in controls.items()), *rows]
    chosen = next(t for t in trained if t.entry.label == main.label)
    result = {
        "name": recipe.name,
        "digest": recipe.digest,
        "metric": kind.figure.key,
        "main": main.label,
        "rows": [row.to_json() for row in with_gains(kind, rows, {**controls, **found}, main.label)],
        "trials": [trial.to_json() for t in trained for trial in t.trials],
        "tuning": {t.entry.label: _tuning(t.tuned) for t in trained if t.tuned},
        "merge": _artifacts(kind, chosen, recipe, folder),
        "environment": environment(),
    }
    atomic_write(folder / folders.METRICS, json.dumps(result, indent=1))
    write_report(folder)


def _draws(recipe: Recipe) -> list[Draw]:
    """Every seed, and within it every fold."""
    folds = range(recipe.folds) if recipe.folds > 1 else [None]
    return [Draw(seed, fold) for seed in recipe.seeds for fold in folds]


def _preflight(listed: list[Entry], recipe: Recipe, folder: Path) -> None:
    """Open the data and mount every entry's method once, so that the last entry's typo does not cost an hour."""
    for entry in listed:
        stages = build(entry.recipe, _draws(recipe)[0])
        stages.task.configure_model()
        write_plan(folder, entry, stages)
        write_preparation(folder, entry, stages)
    kind_of(recipe).inspect(open_data(recipe, _draws(recipe)[0]))
    for draw in _draws(recipe):
        save_split(folder / "splits" / f"{draw.name}.json", open_data(recipe, draw).split)


def _train(entry: Entry, draws: list[Draw], folder: Path, progress: bool) -> _Trained:
    """Tune the learning rate on the first draw's validation split, then train every draw."""
    section, tuned, figure = entry.recipe.tune, None, kind_of(entry.recipe).figure
    if section is not None and entry.recipe.trains:
        tuned = tune(
            section.lr,
            lambda lr: train(TrialSpec(entry, draws[0], lr, folder), progress).val[figure.key],
            lower=figure.lower,
        )
    specs = [TrialSpec(entry, draw, tuned.value if tuned else entry.recipe.trainer.lr, folder) for draw in draws]
    return _Trained(entry, specs, [train(spec, progress) for spec in specs], tuned)


def _by_seed(kind: Kind, specs: list[TrialSpec]) -> list[Any]:
    """What testing the trials leaves, the folds of a seed joined."""
    seeds = dict.fromkeys(spec.draw.seed for spec in specs)
    return [kind.joined([_tested(kind, spec) for spec in specs if spec.draw.seed == seed]) for seed in seeds]


def _tested(kind: Kind, spec: TrialSpec) -> Any:
    path = spec.folder / folders.TESTED
    if not path.is_file():
        kind.write(path, test(spec, restored(spec)))
    return kind.read(path)


def _control(kind: Kind, name: str, recipe: Recipe, seed: int, folder: Path) -> Any:
    path = folder / "baselines" / name / f"seed-{seed}.safetensors"
    if not path.is_file():
        data = open_data(recipe, Draw(seed))
        kind.write(path, kind.control(name, open_backbone(recipe, kind.outputs(data)).model, data))
    return kind.read(path)


def _artifacts(kind: Kind, trained: _Trained, recipe: Recipe, folder: Path) -> str:
    """Adapter, other trained weights, examples and the merged model of the first draw; how the merge went."""
    stages, entry = restored(trained.specs[0]), trained.entry
    write_trained(folder, stages, entry.recipe)
    kind.write_examples(folder, stages, _tested(kind, trained.specs[0]))
    if reason := why_not_mergeable(entry.recipe):
        return reason
    parity = write_merged(folder / folders.MERGED, stages, entry.recipe, kind.sample(stages))
    if recipe.publish:
        publish(folder / folders.MERGED, stages, recipe)
    return str(parity)


def _tuning(tuned: Tuned) -> dict[str, Any]:
    return {
        "lr": tuned.value,
        "val": {f"{lr:g}": score for lr, score in tuned.scores.items()},
        "at_edge": tuned.at_edge,
    }


def _is_partial(path: Path) -> bool:
    return path.name.endswith(folders.SUFFIX)


@contextmanager
def _leaving_nothing_behind(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raised = UserError(f"the disk is full while writing {folder}") if full else error
        if not folders.abandon(folder):
            raised.add_note(f"continue with: visionpeft run --resume {folder}")
        raise raised from (error if full else error.__cause__)
