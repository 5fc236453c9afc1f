"""The loggers a recipe asks for, each writing below the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from visionpeft.errors import UserError
from visionpeft.recipe import Entry


def loggers(entry: Entry, run: Path, trial: str) -> list[Any]:
    """Lightning loggers of one trial. A resumed CSV log begins a new version; TensorBoard goes on in its folder.

    Raises:
        UserError: ``logging.wandb`` without the wandb package.
    """
    from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

    section, made = entry.recipe.logging, []
    if section.csv:
        made.append(CSVLogger(run / trial, name="csv"))
    if section.tensorboard:
        made.append(
            TensorBoardLogger(run / "logs", name=trial.removeprefix("trials/"), version="", default_hp_metric=False)
        )
    if section.wandb:
        made.append(_wandb(entry, run, trial))
    return made


def _wandb(entry: Entry, run: Path, trial: str) -> Any:
    from lightning.pytorch.loggers import WandbLogger

    try:
        return WandbLogger(name=trial, project=entry.recipe.name, save_dir=run, config=entry.recipe.content())
    except ModuleNotFoundError as error:
        raise UserError("logging.wandb needs the package wandb: pip install 'visionpeft[wandb]'") from error
