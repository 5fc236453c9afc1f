"""The families, and which of them a class of diffusers belongs to."""

from __future__ import annotations

from visionpeft.backbones.pipelines.dit import DiT
from visionpeft.backbones.pipelines.family import Family
from visionpeft.backbones.pipelines.flux import Flux
from visionpeft.backbones.pipelines.pixart import PixArt
from visionpeft.backbones.pipelines.sd3 import StableDiffusion3
from visionpeft.backbones.pipelines.sdxl import StableDiffusionXL
from visionpeft.backbones.pipelines.stable_diffusion import StableDiffusion
from visionpeft.backbones.pipelines.unconditional import Unconditional
from visionpeft.errors import unknown

_FAMILIES: tuple[Family, ...] = (
    Unconditional(),
    StableDiffusion(),
    StableDiffusionXL(),
    DiT(),
    PixArt(),
    StableDiffusion3(),
    Flux(),
)
PIPELINES: dict[str, Family] = {name: family for family in _FAMILIES for name in family.pipelines}
"""Class of diffusers → its family."""


def family_of(pipeline: str) -> Family:
    """The family of a class of diffusers.

    Raises:
        UnknownNameError: no family here knows the class (near names are shown).
    """
    if pipeline not in PIPELINES:
        raise unknown("diffusion pipeline", pipeline, PIPELINES)
    return PIPELINES[pipeline]
