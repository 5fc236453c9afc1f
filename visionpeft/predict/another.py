"""``visionpeft eval RUN --data CARD``: the saved weights of a run on another data set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from visionpeft.data.tables import PARTS
from visionpeft.errors import DataError
from visionpeft.metrics import Predictions
from visionpeft.recipe import load_recipe
from visionpeft.runs.finished import OpenedRun
from visionpeft.runs.kinds import kind_of
from visionpeft.runs.trial import test
from visionpeft.tasks.segment import SegmentTask

EVERYTHING = "all"
"""Instead of a part: every case of the data set, whichever part its card puts it in."""
_FEWER = ("shots", "val_shots", "test_shots", "train_cases", "val_cases", "test_cases", "folds")


def evaluate(opened: OpenedRun, card: str | None, part: str) -> Any:
    """What a run's network says of a part (``train``, ``val``, ``test`` or ``all``), of ``card`` if it is given.

    Images are prepared as the recipe says; normalisation follows the other card, whose files it describes. The recipe's
    limits to the number of images do not apply there.

    Raises:
        UnknownNameError: no such card.
        DataError: its classes are not those of the run; or see the readers of data.
    """
    stages = opened.stages if card is None else replace(opened.stages, data=_other_data(opened, card))
    if card is not None and isinstance(stages.task, SegmentTask):
        stages.task.spacing = stages.data.spacing
    parts = [name for name in PARTS if getattr(stages.data.split, name)] if part == EVERYTHING else [part]
    found = [test(opened.spec, stages, name) for name in parts]
    if len(found) > 1 and isinstance(found[0], Predictions):
        return Predictions(torch.cat([f.logits for f in found]), torch.cat([f.labels for f in found]))
    return found[0] if len(found) == 1 else kind_of(opened.recipe).joined(found)


def _other_data(opened: OpenedRun, card: str) -> Any:
    known = type(opened.recipe.data).model_fields
    changes = [f"data.{key}=null" for key in _FEWER if key in known]
    recipe = load_recipe(opened.recipe, [f"data.card={card}", *changes])
    data = kind_of(recipe).open_data(recipe, opened.stages.backbone.input, opened.spec.draw)
    if tuple(data.classes) != tuple(opened.stages.data.classes):
        wanted, found = ", ".join(opened.stages.data.classes), ", ".join(data.classes)
        raise DataError(f"data set {card!r} has the classes {found}; the run {opened.result.folder} knows {wanted}")
    return data
