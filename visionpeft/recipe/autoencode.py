"""A recipe of training, or adapting, the autoencoder that gives a diffusion pipeline its latents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from visionpeft.recipe.sections import Count, Recipe, Section, comparison

Weight = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Task(Section):
    """What a picture that comes back should be like, and what latents should be like."""

    name: Literal["autoencode"]
    crop: Count | None = Field(default=None, description="pixels a side of random training crops; default: all of it")
    kl: Weight = Field(default=1e-4, description="weight of the divergence from unit Gaussians, a latent number")
    edges: Weight = Field(default=0.0, description="weight of the absolute error of differences of neighbouring pixels")
    recolour: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="share of training pictures whose channels are inverted, narrowed and shifted"
    )
    start_noise: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="of the posterior of a network with random weights, where it is about 1 as built"
    )


class Data(Section):
    """Which pictures, and how they are fed."""

    card: str = Field(description="a name from `visionpeft datasets`, a path to a pictures card, or a folder")
    train_pictures: Count | None = Field(default=None, description="how many of the train part; default: all")
    val_pictures: Count | None = None
    test_pictures: Count | None = None
    batch_size: Count = 16
    augment: Literal["none", "flip"] = "none"
    workers: Annotated[int, Field(ge=0, le=256)] = 0


class AutoencodeRecipe(Recipe):
    """Autoencoding: an ``AutoencoderKL``, what of it trains, pictures, and what to compare with."""

    task: Task
    train_also: list[str] = Field(default=[], description="modules trained whole, as decoder.conv_out")
    data: Data
    compare: list[comparison(Task, Data)] = Field(default=[])  # pyright: ignore[reportInvalidTypeForm]

    @model_validator(mode="after")
    def _has_no_classifier(self) -> AutoencodeRecipe:
        if self.method.name == "head_only":
            raise ValueError("method.name: head_only: an autoencoder has no classifier; use frozen with train_also")
        return self
