"""A recipe of image classification."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from visionpeft.recipe.sections import Count, Fraction, Recipe, Section, comparison


class Task(Section):
    """What is learnt: the loss and the metrics."""

    name: Literal["classify"] = "classify"
    label_smoothing: Fraction = 0.0
    mixup: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.0, description="alpha of the Beta distribution; 0 = off"
    )


class Data(Section):
    """Which images, how many of them, and how they are fed."""

    card: str = Field(description="a name from `visionpeft datasets`, or a path to a card")
    shots: Count | None = Field(default=None, description="training images a class; default: all")
    val_shots: Count | None = Field(default=None, description="validation images a class; default: all")
    test_shots: Count | None = Field(default=None, description="test images a class; default: all")
    batch_size: Count = 32
    augment: Literal["standard", "none"] = "standard"
    workers: Annotated[int, Field(ge=0, le=256)] = 0


class ClassifyRecipe(Recipe):
    """Image classification: backbone, method, data, trainer, and what to compare with."""

    task: Task = Task()
    data: Data
    compare: list[comparison(Task, Data)] = Field(default=[])  # pyright: ignore[reportInvalidTypeForm]
    baselines: list[Literal["nearest_centroid"]] = Field(default=[], description="controls that train nothing")

    @property
    def controls(self) -> list[str]:
        return list(self.baselines)
