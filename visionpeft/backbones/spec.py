"""What a loaded backbone is, and what it expects at its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class InputSpec:
    """How images must be prepared.

    Attributes:
        size: height and width in pixels.
        channels: 1 or 3 (medical networks: any).
        mean, std: per channel, for values in 0 … 1.
        interpolation: ``"bicubic"`` or ``"bilinear"``.
    """

    size: int
    channels: int = 3
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    interpolation: str = "bicubic"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network with what a caller must know about it.

    Attributes:
        model: the plain module, in training mode as constructed.
        input: how images must be prepared.
        notes: one sentence for each thing that was, or was not, loaded.
        example_input: makes the arguments of one forward pass on the model's device: a tensor, a tuple of
            positional arguments, or a dict of keyword arguments. For audits.
        pipeline: the :class:`visionpeft.backbones.pipelines.Pipeline` whose denoiser ``model`` is, if it is one's.
    """

    model: nn.Module
    input: InputSpec
    notes: tuple[str, ...]
    example_input: Callable[[], Any]
    pipeline: Any = None


@dataclass(frozen=True)
class Request:
    """The arguments of :func:`visionpeft.backbones.load`, as a family's room gets them; ``name`` without family."""

    name: str
    pretrained: bool | str
    num_classes: int | None
    image_size: int | None
    device: str
    options: dict[str, Any]
