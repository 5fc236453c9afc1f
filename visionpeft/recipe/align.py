"""A recipe of aligning the two towers of a CLIP on image–caption pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from visionpeft.recipe.fewshot import Templates, prompts_written_out
from visionpeft.recipe.sections import Count, Fraction, Recipe, Section, comparison


class Task(Section):
    """The contrastive loss, and the prompts of the held-out classes."""

    name: Literal["align"]
    templates: Templates = Field(
        default=None,
        description="texts with {} for a held-out class, or a prompt file (its path or its keys); default: the cards'",
    )
    dropout: Fraction = Field(default=0.0, description="of image features in front of their projection, in training")
    temperature: Annotated[float, Field(ge=0.01, le=10)] = Field(
        default=0.07, description="of the softmax, at the start"
    )
    learn_temperature: bool = True
    cache_features: bool = Field(
        default=True, description="keep what the frozen front of the image tower says of images without augmentation"
    )


class Data(Section):
    """Which pairs, and how they are fed."""

    card: str = Field(description="a name from `visionpeft datasets`, or a path to a captions card")
    centroid_shots: Count = Field(
        default=5, description="images a held-out class that the nearest-centroid control learns from"
    )
    batch_size: Annotated[int, Field(ge=2)] = 512
    augment: Literal["standard", "none"] = Field(
        default="none", description="standard encodes every image anew each time it is seen"
    )
    workers: Annotated[int, Field(ge=0, le=256)] = 0


class AlignRecipe(Recipe):
    """Aligning two towers: a CLIP, what of it trains, pairs, and what to compare with."""

    task: Task
    train_also: list[str] = Field(default=[], description="modules trained whole, as visual.head and text.proj")
    data: Data
    compare: list[comparison(Task, Data)] = Field(default=[])  # pyright: ignore[reportInvalidTypeForm]
    baselines: list[Literal["nearest_centroid"]] = Field(default=[], description="controls that train nothing")

    @classmethod
    def written_out(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        return prompts_written_out(data)

    @model_validator(mode="after")
    def _has_no_classifier(self) -> AlignRecipe:
        if self.method.name == "head_only":
            raise ValueError("method.name: head_only: a CLIP has no classifier; use frozen with train_also")
        return self

    @property
    def controls(self) -> list[str]:
        return list(self.baselines)
