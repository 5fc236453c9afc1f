"""A recipe of few-shot classification with a vision-language model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from visionpeft.data.prompts import read_prompts
from visionpeft.recipe.classify import Data as ClassifyData
from visionpeft.recipe.sections import Fraction, Recipe, Section, comparison

Template = Annotated[str, Field(min_length=1, max_length=400)]


class Texts(Section):
    """What stands in a prompt file."""

    templates: list[Template] | None = Field(default=None, description="texts with {} for the class")
    names: dict[str, str] | None = Field(default=None, description="class: words, where its own name will not do")


Templates = list[Template] | Texts | str | None


def prompts_written_out(data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain data with the content of prompt files in the place of their paths.

    So a run folder knows its texts, whatever becomes of the files.
    """
    found = {**data, "task": _written_out(data["task"])}
    if isinstance(others := data.get("compare"), list):
        found["compare"] = [
            {**item, "task": _written_out(item["task"])} if isinstance(item, dict) and "task" in item else item
            for item in others
        ]
    return found


def _written_out(task: Any) -> Any:
    given = task.get("templates") if isinstance(task, dict) else None
    if not isinstance(given, (str, dict)):
        return task
    return {**task, "templates": read_prompts(given).model_dump(mode="json", exclude_none=True)}


class Task(Section):
    """How classes become weights of a classifier: by the text tower, or by a control that needs no training."""

    name: Literal["fewshot"]
    templates: Templates = Field(
        default=None,
        description="texts with {} for the class, or a prompt file (its path or its keys); default: the card's",
    )
    readout: Literal["text", "tip_adapter", "linear_probe", "nearest_centroid"] = Field(
        default="text", description="what scores the classes; all but text are controls for a frozen network"
    )
    features: Literal["joint", "tower"] = Field(
        default="joint", description="image features a control reads: in the joint space, or before the projection"
    )
    label_smoothing: Fraction = 0.0
    cache_features: bool = Field(
        default=True, description="keep what the frozen front of the image tower says of images without augmentation"
    )


class Data(ClassifyData):
    """Which images, which half of the classes, and where to look for what was forgotten."""

    classes: Literal["all", "base", "new"] = Field(
        default="all", description="base: train on the first half of the classes, test on both"
    )
    forgetting: list[str] = Field(default=[], description="cards on which zero-shot top-1 is measured after training")


class FewShotRecipe(Recipe):
    """Few-shot classification: a CLIP, a method, a few images a class, and what to compare with."""

    task: Task
    train_also: list[str] = Field(default=[], description="modules trained whole beside the adapter")
    data: Data
    compare: list[comparison(Task, Data)] = Field(default=[])  # pyright: ignore[reportInvalidTypeForm]

    @classmethod
    def written_out(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        return prompts_written_out(data)

    @model_validator(mode="after")
    def _reads_texts(self) -> FewShotRecipe:
        if not self.backbone.name.startswith("open_clip/"):
            raise ValueError(
                f"backbone.name: {self.backbone.name!r} reads no texts: few-shot needs an open_clip/… model"
            )
        return self

    @model_validator(mode="after")
    def _controls_train_nothing(self) -> FewShotRecipe:
        if self.task.readout != "text" and self.trains:
            raise ValueError(f"task.readout: {self.task.readout!r} is a control: give it method: {{name: frozen}}")
        if self.task.readout == "text" and self.task.features != "joint":
            raise ValueError("task.features: texts are compared in the joint space; tower is for the other readouts")
        if self.method.name == "head_only":
            raise ValueError("method.name: head_only: a CLIP has no classifier; use task.readout: linear_probe")
        return self
