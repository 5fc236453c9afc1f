"""A recipe of adapting, or training, the denoiser of a diffusion pipeline."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from visionpeft.recipe.sections import Count, Fraction, Recipe, Section, comparison

Guidance = Annotated[float, Field(ge=0, le=50)]


class Prior(Section):
    """DreamBooth's prior preservation: what the untouched pipeline draws of the subject's class."""

    caption: str = Field(description="of the class, as 'a photo of a dog' where the subject is 'a photo of sks dog'")
    pictures: Count = Field(default=50, description="drawn before training")
    weight: Annotated[float, Field(ge=0, le=10)] = 1.0


class Samples(Section):
    """Pictures drawn in testing, and small ones while training."""

    count: Annotated[int, Field(ge=0, le=50_000)] = Field(default=64, description="with captions of the test part")
    steps: Annotated[int, Field(ge=1, le=1000)] = 25
    guidance: Guidance | None = Field(default=None, description="classifier-free guidance; default: the family's own")
    preview: Annotated[int, Field(ge=0, le=64)] = Field(
        default=8, description="drawn at every validation with fixed seeds, into the trial's folder"
    )


class Task(Section):
    """The objective (noise, velocity or flow) is that of the pipeline's scheduler."""

    name: Literal["diffuse"]
    min_snr: Annotated[float, Field(gt=0, le=100)] | None = Field(
        default=None, description="γ of min-SNR weights; 5 is usual; none: all noise levels count the same"
    )
    offset_noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    ema: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="decay of the running mean of the trained weights, which is then kept"
    )
    drop_caption: Fraction = Field(default=0.1, description="of pictures, for classifier-free guidance")
    timesteps: Literal["uniform", "logit_normal", "mode"] = "uniform"
    checkpointing: bool = Field(default=False, description="gradient checkpointing of the denoiser's blocks")
    cache_latents: bool = Field(default=True, description="encode each picture once; not with augmentation")
    prior: Prior | None = None
    samples: Samples = Samples()


class Data(Section):
    """Which pictures, and how they are fed."""

    card: str = Field(description="a name from `visionpeft datasets`, a path to a pictures card, or a folder")
    source: str | None = Field(
        default=None, description="card of the style that the pipeline was trained on: style and content are measured"
    )
    train_pictures: Count | None = Field(default=None, description="how many of the train part; default: all")
    val_pictures: Count | None = None
    test_pictures: Count | None = None
    batch_size: Count = 16
    augment: Literal["none", "flip"] = "none"
    train_on: Literal["train", "all"] = Field(
        default="train", description="all: a source model that shall know every picture, those of val and test too"
    )
    tell: Literal["caption", "class"] = Field(default="caption", description="what the denoiser is told of a picture")
    caption: str | None = Field(default=None, description="a text for all pictures, or a template with {}")
    workers: Annotated[int, Field(ge=0, le=256)] = 0


class DiffuseRecipe(Recipe):
    """Diffusion: a pipeline, what of its denoiser trains, pictures, and what to compare with."""

    task: Task
    train_also: list[str] = Field(default=[], description="modules of the denoiser trained whole, as conv_out")
    data: Data
    compare: list[comparison(Task, Data)] = Field(default=[])  # pyright: ignore[reportInvalidTypeForm]

    @model_validator(mode="after")
    def _has_no_classifier(self) -> DiffuseRecipe:
        if self.method.name == "head_only":
            raise ValueError("method.name: head_only: a denoiser has no classifier; use frozen with train_also")
        return self

    @model_validator(mode="after")
    def _says_its_size(self) -> DiffuseRecipe:
        if self.backbone.image_size is None:
            raise ValueError("backbone.image_size: say the pictures' sides in pixels, as 512 for Stable Diffusion 1.5")
        return self

    @model_validator(mode="after")
    def _caches_what_stays(self) -> DiffuseRecipe:
        if self.data.augment != "none" and self.task.cache_latents:
            raise ValueError(
                f"task.cache_latents: pictures change with data.augment: {self.data.augment}; set cache_latents: false"
            )
        return self
