"""A pipeline of diffusers beside what this library knows of its family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from visionpeft.backbones.pipelines.attention import choose_attention
from visionpeft.backbones.pipelines.family import Family


@dataclass(frozen=True, eq=False)
class Pipeline:
    """An open pipeline.

    Attributes:
        pipe: the plain pipeline of diffusers, every component in evaluation mode and frozen.
        family: how a pipeline of this kind is conditioned, called and sampled.
        notes: one sentence on what was loaded, and one on which attention runs and why.
    """

    pipe: Any
    family: Family
    notes: tuple[str, ...]

    @property
    def denoiser(self) -> nn.Module:
        """The network that predicts noise, velocity or flow; adapting it changes what ``pipe`` draws."""
        return getattr(self.pipe, self.family.component)


def settled(pipe: Any, family: Family, note: str) -> Pipeline:
    """``pipe`` in evaluation mode, frozen and silent, with what its family wants changed before training."""
    for component in pipe.components.values():
        if isinstance(component, nn.Module):
            component.eval().requires_grad_(False)
    pipe.set_progress_bar_config(disable=True)
    family.prepare(pipe)
    return Pipeline(pipe, family, (note, choose_attention(getattr(pipe, family.component))))
