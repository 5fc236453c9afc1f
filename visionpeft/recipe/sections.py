"""The sections that every recipe has: strict, frozen pydantic models; ``classify`` and ``segment`` add theirs.

A recipe holds names and numbers only. Names are looked up in registries when the run starts; nothing in a
recipe is imported or executed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, create_model, model_validator

WITHOUT_ADAPTER = ("head_only", "full", "frozen")
"""Values of ``method.name`` that train the network itself: its head, all of it, or only what ``train_also`` names."""

Plain = bool | int | float | str | None
Fraction = Annotated[float, Field(ge=0, lt=1)]
LearningRate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Label = Annotated[str, Field(min_length=1, max_length=80)]
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class Section(BaseModel):
    """Base of all sections: no unknown key, no silent conversion, no change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Backbone(Section):
    """The network to adapt, as ``family/model``, and where its weights come from."""

    name: str = Field(description="for instance timm/vit_tiny_patch16_224")
    pretrained: bool | str = Field(
        default=True,
        description="true = hub; 'package' = from a Python package; a path to .safetensors; false = random",
    )
    image_size: Count | None = Field(default=None, description="pixels a side; default: as in pretraining")
    options: dict[str, JsonValue] = Field(default={}, description="passed to the model's constructor")
    quantize: Literal["int8", "int4"] | None = Field(
        default=None, description="hold frozen Linears in few bits by torchao (extra `quant`); adapters go on top"
    )


class Method(Section):
    """An adapter method by name with its options, or ``head_only`` / ``full`` / ``frozen``."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str = Field(description="see `visionpeft methods`; or head_only, full, frozen")

    @property
    def options(self) -> dict[str, Any]:
        """The method's own fields as written in the recipe."""
        return dict(self.model_extra or {})

    @property
    def adapts(self) -> bool:
        """Whether an adapter is mounted (not for ``head_only``, ``full`` and ``frozen``)."""
        return self.name not in WITHOUT_ADAPTER


class Further(Section):
    """One more adapter beside the main one: other weights, or another method."""

    method: Method
    targets: Annotated[list[str], Field(min_length=1)]


class Norm(Section):
    """Normalisation layers of the frozen network."""

    train: bool = Field(default=False, description="train their affine weights and update running statistics")


class Trainer(Section):
    """The optimiser, its schedule, and the arguments handed to ``lightning.Trainer`` unchanged."""

    max_steps: Count = 1000
    lr: LearningRate = 1e-3
    head_lr: LearningRate | None = Field(default=None, description="learning rate of the head; default: lr")
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    checkpoint_every: Count = Field(default=100, description="steps between checkpoints for --resume")
    evaluate_every: Count | None = Field(default=None, description="steps between validations; default: ten in a run")
    channels_last: bool = Field(default=False, description="memory layout of images and convolutions")

    precision: Literal["32-true", "16-mixed", "bf16-mixed", "bf16-true", "16-true", "64-true"] = "32-true"
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    devices: Count | list[int] | Literal["auto"] = 1
    strategy: str = "auto"
    num_nodes: Count = 1
    accumulate_grad_batches: Count = 1
    gradient_clip_val: Annotated[float, Field(gt=0)] | None = None
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    sync_batchnorm: bool = False
    detect_anomaly: bool = False
    log_every_n_steps: Count = 10

    @model_validator(mode="after")
    def _warmup_fits(self) -> Trainer:
        if self.warmup_steps >= self.max_steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be below max_steps {self.max_steps}")
        return self


LIGHTNING_KEYS = tuple(Trainer.model_fields)[list(Trainer.model_fields).index("precision") :]
"""Keys of :class:`Trainer` that go to ``lightning.Trainer`` as they are."""


class Tune(Section):
    """Values tried before the run; the best on the validation split is kept (never the test split)."""

    lr: Annotated[list[LearningRate], Field(min_length=1)]


class Logging(Section):
    """Which loggers write into the run folder."""

    tensorboard: bool = True
    csv: bool = True
    wandb: bool = False


def _partial(section: type[Section]) -> type[Section]:
    """The same section with every key optional, for a ``compare`` entry to change some of them."""
    fields: dict[str, Any] = {key: (field.annotation, None) for key, field in section.model_fields.items()}
    return create_model(f"{section.__name__}Changes", __base__=Section, **fields)


class Compare(Section):
    """One more way to do the same task, run by the same command. Keys left out are those of the recipe."""

    label: Label
    backbone: _partial(Backbone) | None = None  # pyright: ignore[reportInvalidTypeForm]
    method: Method | None = None
    targets: list[str] | None = None
    also: list[Further] | None = None
    train_also: list[str] | None = None
    norm: Norm | None = None
    trainer: _partial(Trainer) | None = None  # pyright: ignore[reportInvalidTypeForm]
    tune: Tune | None = None


MERGED = ("backbone", "task", "data", "trainer")
"""Sections of which a ``compare`` item changes some keys; the others it replaces."""


def comparison(task: type[Section], data: type[Section]) -> Any:
    """A ``compare`` item of a recipe with these two sections."""
    changes: dict[str, Any] = {"task": (_partial(task) | None, None), "data": (_partial(data) | None, None)}
    return create_model("Compare", __base__=Compare, __doc__=Compare.__doc__, **changes)


class Recipe(Section):
    """What the recipes of all tasks share: backbone, method, trainer, and what to compare with."""

    name: FolderName = Field(description="name of the run folder")
    label: Label | None = Field(default=None, description="the main entry's name in tables; default: the method")
    task: Section
    backbone: Backbone
    method: Method
    targets: list[str] = Field(
        default=[], description="paths, path endings, roles, globs or re:…, see `visionpeft show`"
    )
    also: list[Further] = Field(default=[], description="further adapters, as where a rank differs by layer")
    train_also: list[str] = Field(default=["head"], description="modules trained whole beside the adapter")
    norm: Norm = Norm()
    data: Section
    trainer: Trainer = Trainer()
    tune: Tune | None = None
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)] = [0]
    compare: list[Any] = []
    sweep: dict[str, Annotated[list[Plain], Field(min_length=1)]] = Field(
        default={},
        description="a key path and its values, as method.rank: [4, 8]",
        max_length=1,
    )
    logging: Logging = Logging()
    publish: bool = Field(default=False, description="keep the merged model in the cache as pretrained: run:<name>")

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.method.adapts and not self.targets:
            raise ValueError(f"targets: {self.method.name!r} needs at least one, for instance [linear, conv]")
        if self.also and not all(part.method.adapts for part in (self, *self.also)):
            raise ValueError("also: further adapters go beside a method that adapts, and adapt themselves")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} names one seed twice")
        return self

    @classmethod
    def written_out(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        """Plain data of such a recipe with the content of files that it names in their place; here it names none.

        Raises:
            UserError: a file is missing or damaged.
        """
        return dict(data)

    @property
    def adapters(self) -> dict[str, tuple[Method, list[str]]]:
        """Adapter name → method and targets: ``default``, ``default-2``, …; none where nothing is adapted."""
        parts = [(part.method, part.targets) for part in (self, *self.also) if part.method.adapts]
        return {f"default-{number}" if number > 1 else "default": part for number, part in enumerate(parts, 1)}

    @property
    def controls(self) -> list[str]:
        """Baselines that train nothing, for tasks that have some."""
        return []

    @property
    def folds(self) -> int:
        """Parts of a cross-validation; 1 is the card's own split."""
        return 1

    @property
    def trains(self) -> bool:
        """Whether anything moves: a frozen network may be tested as it is."""
        return self.method.name != "frozen" or bool(self.train_also) or self.norm.train

    @property
    def digest(self) -> str:
        """sha256 (hex) of the resolved content: equal for two files that mean the same run."""
        content = json.dumps(self.content(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(content.encode()).hexdigest()

    def content(self) -> dict[str, Any]:
        """The recipe as plain data with every default written out."""
        return self.model_dump(mode="json", exclude_none=True)
