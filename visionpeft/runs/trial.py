"""One trial: an entry of the recipe trained with one draw and one learning rate, and tested from its saved weights."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch

from visionpeft.errors import OptionError, StateError, UserError
from visionpeft.files import atomic_write
from visionpeft.recipe import Entry, Recipe
from visionpeft.recipe.sections import LIGHTNING_KEYS
from visionpeft.runs.callbacks import AtomicCheckpoints, Checkpoints, History, Meter, Progress
from visionpeft.runs.folder import read_json
from visionpeft.runs.kinds import Draw, Stages, kind_of
from visionpeft.runs.loggers import loggers
from visionpeft.runs.result import Trial
from visionpeft.runs.stages import build
from visionpeft.runs.weights import read_weights, write_weights
from visionpeft.tasks.frozen import moving_state


@dataclass(frozen=True)
class TrialSpec:
    """Which trial, and in which run folder."""

    entry: Entry
    draw: Draw
    lr: float
    run: Path

    @property
    def name(self) -> str:
        """Its folder inside the run folder."""
        return f"trials/{self.entry.slug}/lr-{self.lr:g}/{self.draw.name}"

    @property
    def folder(self) -> Path:
        return self.run / self.name

    @property
    def weights(self) -> Path:
        """What it trained: adapter, head, norms and the buffers beside them."""
        return self.folder / "weights.safetensors"


def train(spec: TrialSpec, progress: bool) -> Trial:
    """Train, or continue from the last checkpoint, or return what is already there.

    Raises:
        UserError: anything the user can mend, such as a loss that became NaN.
    """
    if (spec.folder / "trial.json").is_file():
        return Trial.from_json(read_json(spec.folder / "trial.json"))
    stages = build(spec.entry.recipe, spec.draw, spec.lr)
    history, meter = History(spec.entry.recipe.trainer.log_every_n_steps), Meter()
    checkpoint = spec.folder / "last.ckpt"
    own = kind_of(spec.entry.recipe).callbacks(spec.entry.recipe, spec.folder)
    callbacks = [history, meter, *own, *_terminal(spec, progress)]
    callbacks.append(Checkpoints(checkpoint, spec.entry.recipe.trainer.checkpoint_every))
    with readable_errors():
        trainer = lightning_trainer(spec.entry.recipe, callbacks, loggers(spec.entry, spec.run, spec.name))
        resume = checkpoint if checkpoint.is_file() else None
        if spec.entry.recipe.trains:
            trainer.fit(stages.task, datamodule=stages.data, ckpt_path=resume, weights_only=True)
        measured = trainer.validate(stages.task, datamodule=stages.data, verbose=False)[0]
    trial = _trial(spec, stages, trainer.global_step, meter.totals, measured)
    if trainer.is_global_zero:
        write_weights(spec.weights, moving_state(stages.task.model))
        atomic_write(spec.folder / "history.json", json.dumps(history.rows))
        atomic_write(spec.folder / "trial.json", json.dumps(trial.to_json(), indent=1))
    return trial


def restored(spec: TrialSpec, data: Any = None) -> Stages:
    """The stages of a finished trial, adapted and with its trained weights; ``data`` as in :func:`build`.

    Raises:
        UserError: the weights file is missing, damaged, or of another recipe.
    """
    stages = build(spec.entry.recipe, spec.draw, spec.lr, data)
    stages.task.configure_model()
    state, wanted = read_weights(spec.weights), moving_state(stages.task.model)
    if state.keys() != wanted.keys():
        raise UserError(f"{spec.weights} does not fit the recipe: {sorted(state.keys() ^ wanted.keys())[:4]}")
    stages.task.model.load_state_dict(state, strict=False)
    return stages


def test(spec: TrialSpec, stages: Stages, part: str = "test") -> Any:
    """What the model says of a split, in its fixed order; one device is enough for that."""
    kind = kind_of(spec.entry.recipe)
    with readable_errors():
        trainer = lightning_trainer(spec.entry.recipe, [], [], alone=True)
        trainer.test(stages.task, dataloaders=kind.loaders(stages, part), verbose=False)
    return kind.tested(stages, part)


def lightning_trainer(recipe: Recipe, callbacks: list[Any], logs: list[Any], alone: bool = False) -> lightning.Trainer:
    """The trainer a recipe describes, its Lightning arguments passed on as they are; ``alone``: on one device."""
    section = recipe.trainer
    passed = {key: getattr(section, key) for key in LIGHTNING_KEYS}
    if alone:
        passed |= {"devices": 1, "num_nodes": 1, "strategy": "auto"}
    if section.precision in ("16-mixed", "16-true") and not _on_accelerator(section.accelerator):
        raise OptionError(f"trainer.precision: {section.precision} needs a GPU; on a CPU use bf16-mixed or 32-true")
    return lightning.Trainer(
        **passed,
        max_steps=section.max_steps,
        val_check_interval=_validation_interval(recipe),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=logs or False,
        callbacks=callbacks,
        plugins=[AtomicCheckpoints()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


@contextmanager
def readable_errors() -> Iterator[None]:
    """Turn what Lightning and torch raise for wrong input into errors that say what to change; hush the rest."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    for room in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(room).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*`isinstance\\(treespec, LeafSpec\\)`.*")
        try:
            yield
        except MisconfigurationException as error:
            raise OptionError(f"trainer: {error}") from error
        except torch.OutOfMemoryError as error:
            raise StateError("the device has no memory left: lower data.batch_size or backbone.image_size") from error


def _terminal(spec: TrialSpec, progress: bool) -> list[Any]:
    recipe = spec.entry.recipe
    extras = [f"lr {spec.lr:g}"] if recipe.tune else []
    extras += [f"seed {spec.draw.seed}"] if len(recipe.seeds) > 1 else []
    extras += [f"fold {spec.draw.fold + 1} of {recipe.folds}"] if spec.draw.fold is not None else []
    return [Progress(", ".join([spec.entry.label, *extras]), kind_of(recipe).figure)] if progress else []


def _trial(spec: TrialSpec, stages: Stages, steps: int, totals: dict[str, Any], measured: Any) -> Trial:
    parameters = dict(stages.task.model.named_parameters())
    adapter = {name for name in parameters if ".adapters." in f".{name}"}
    return Trial(
        entry=spec.entry.label,
        seed=spec.draw.seed,
        fold=spec.draw.fold,
        lr=spec.lr,
        val={key.removeprefix("val/"): float(value) for key, value in measured.items()},
        trainable=sum(p.numel() for p in parameters.values() if p.requires_grad),
        adapter=sum(parameters[name].numel() for name in adapter),
        total=sum(p.numel() for name, p in parameters.items() if name not in adapter),
        steps=steps,
        folder=spec.name,
        **totals,
    )


def _validation_interval(recipe: Recipe) -> int:
    section = recipe.trainer
    steps = section.evaluate_every or max(1, section.max_steps // 10)
    return steps * section.accumulate_grad_batches


def _on_accelerator(accelerator: str) -> bool:
    return accelerator != "cpu" and (torch.cuda.is_available() or torch.backends.mps.is_available())
