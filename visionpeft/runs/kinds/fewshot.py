"""Few-shot classification by a vision-language model, as the pipeline sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor, nn

from visionpeft.backbones import Backbone
from visionpeft.backbones.clip_text import tokenizer_for
from visionpeft.data.fewshot import NEW, FewShotData
from visionpeft.data.prompts import Prompts, Templates, prompts_of
from visionpeft.errors import DataError, UserError
from visionpeft.metrics import Predictions
from visionpeft.recipe import Recipe
from visionpeft.runs.kinds.classify import Classify
from visionpeft.runs.kinds.kind import Draw, Stages
from visionpeft.runs.weights import read_tensors, write_weights
from visionpeft.tasks.base import Task
from visionpeft.tasks.clip.logits import ClipClassifier
from visionpeft.tasks.fewshot import FewShotOptions, FewShotTask
from visionpeft.tasks.optimize import OptimizerOptions

MAIN = "test"
"""Name of the test set of the classes that are trained."""


@dataclass(frozen=True)
class Tested(Predictions):
    """Predictions of the main test set; ``elsewhere`` holds those of the other sets by name."""

    elsewhere: Mapping[str, Predictions] = field(default_factory=dict)


class FewShot(Classify):
    """Top-1 of single images, classes named by texts."""

    module = FewShotData

    def beside(self, recipe: Recipe, draw: Draw) -> dict[str, Any]:
        return {"templates": templates_of(recipe)}

    def heads(self, model: nn.Module) -> tuple[str, ...]:
        return ()

    def outputs(self, data: Any) -> None:
        return None

    def task(
        self, recipe: Recipe, backbone: Backbone, data: Any, prepare: Any, optimizer: OptimizerOptions, seed: int
    ) -> Task:
        section: Any = recipe.task
        options = FewShotOptions(
            readout=section.readout,
            features=section.features,
            label_smoothing=section.label_smoothing,
            channels_last=recipe.trainer.channels_last,
        )
        return FewShotTask(
            backbone.model,
            _tokens(recipe, data),
            prepare=prepare,
            optimizer=optimizer,
            options=options,
            images=getattr(data, "ordered", None),
            encode_by=data.encode_by if section.cache_features and isinstance(data, FewShotData) else None,
            seed=seed,
        )

    def answering(self, stages: Stages, network: nn.Module) -> nn.Module:
        assert isinstance(stages.task, FewShotTask)
        return ClipClassifier(network, stages.task.tokens)

    def batch(self, stages: Stages) -> Tensor:
        return next(iter(stages.data.images("test")))[0]

    def loaders(self, stages: Stages, part: str) -> list[Any]:
        """A control knows the classes of its shots and no others, so it is tested on these alone."""
        assert isinstance(stages.task, FewShotTask)
        tests = stages.data.tests(part)
        return tests if stages.task.options.readout == "text" else tests[:1]

    def tested(self, stages: Stages, part: str) -> Tested:
        assert isinstance(stages.task, FewShotTask), "its own task"
        found = dict(stages.task.predictions)
        main = found.pop(MAIN)
        return Tested(main.logits, main.labels, found)

    def write(self, path: Path, found: Predictions) -> None:
        assert isinstance(found, Tested)
        sets = {MAIN: found, **found.elsewhere}
        write_weights(path, {f"{name}/{key}": getattr(tested, key) for name, tested in sets.items() for key in _KEPT})

    def read(self, path: Path) -> Tested:
        state = read_tensors(path)
        names = dict.fromkeys(key.rpartition("/")[0] for key in state)
        if MAIN not in names or set(state) != {f"{name}/{key}" for name in names for key in _KEPT}:
            raise UserError(f"{path} holds {', '.join(state)}, not logits and labels of test sets")
        sets = {name: Predictions(state[f"{name}/logits"].float(), state[f"{name}/labels"].long()) for name in names}
        main = sets.pop(MAIN)
        return Tested(main.logits, main.labels, dict(sorted(sets.items())))

    def figures(self, found: Sequence[Predictions]) -> dict[str, float]:
        """Of a run on half of the classes the other half and the harmonic mean; of other data sets their top-1."""
        main = fmean(_top1(tested) for tested in found)
        names = found[0].elsewhere if isinstance(found[0], Tested) else {}
        others = {name: fmean(_top1(tested.elsewhere[name]) for tested in found) for name in names}  # pyright: ignore
        new = others.pop(NEW, None)
        halves = {} if new is None else {NEW: new, "harmonic mean": 2 * main * new / max(main + new, 1e-12)}
        return halves | {f"on {name}": value for name, value in others.items()}

    def forget(self) -> None:
        super().forget()
        _tokenized.cache_clear()


_KEPT = ("logits", "labels")


def _top1(found: Predictions) -> float:
    return found.correct().double().mean().item()


def _tokens(recipe: Recipe, data: Any) -> dict[str, Tensor]:
    """Test set → tokens of its prompts; without data (a run's preparation) those of the main set alone."""
    if isinstance(data, FewShotData):
        sets = {MAIN: data.prompts, **{other.name: other.data.prompts for other in data.elsewhere}}
    else:
        sets = {MAIN: prompts_of(data.card, data.classes, templates_of(recipe), known=None)}
    options = json.dumps(recipe.backbone.options)  # a mapping is not hashable
    return {name: _tokenized(prompts, recipe.backbone.name, options) for name, prompts in sets.items()}


@lru_cache(maxsize=16)
def _tokenized(prompts: Prompts, backbone: str, options: str) -> Tensor:
    """Made once for all trials, so that a warning of long texts comes once too."""
    return tokens_of(prompts, tokenizer_for(backbone, json.loads(options)))


def templates_of(recipe: Recipe) -> Templates:
    """``task.templates`` as plain data."""
    return recipe.task.model_dump(mode="json", exclude_none=True).get("templates")


def tokens_of(prompts: Prompts, tokenize: Any) -> Tensor:
    """The prompts as tokens ``(classes, templates, length)``.

    Raises:
        DataError: two classes have the same tokens, as where their words are cut off or all unknown to the tokenizer.
    """
    flat = tokenize([text for texts in prompts.texts for text in texts])
    tokens = flat.reshape(len(prompts.texts), -1, flat.shape[-1])
    first: dict[bytes, int] = {}
    for place, own in enumerate(tokens):
        if (other := first.setdefault(own.numpy().tobytes(), place)) != place:
            raise DataError(
                f"the text tower cannot tell the classes {prompts.classes[other]!r} and {prompts.classes[place]!r} "
                f"apart: {prompts.texts[other][0]!r:.80} and {prompts.texts[place][0]!r:.80} become the same "
                f"{tokens.shape[-1]} tokens; give shorter templates, or other 'names' in a prompt file"
            )
    return tokens
