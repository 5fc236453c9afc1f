"""Prior preservation: what the untouched pipeline draws of a class, trained beside the subject's few pictures.

Ruiz et al., DreamBooth: Fine Tuning Text-to-Image Diffusion Models for Subject-Driven Generation, CVPR 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visionpeft.backbones.pipelines import Pipeline

AT_ONCE = 16


@dataclass(frozen=True)
class Prior:
    """What is preserved.

    Args:
        caption: of the class, such as ``a photo of a dog`` where the subject is ``a photo of sks dog``.
        pictures: how many the untouched pipeline draws of it, before training starts.
        weight: of their loss beside that of the subject's pictures.
        steps, guidance: of drawing them; None takes the family's own.
    """

    caption: str
    pictures: int = 50
    weight: float = 1.0
    steps: int = 25
    guidance: float | None = None


@torch.no_grad()
def drawn(pipeline: Pipeline, prior: Prior, size: int) -> Tensor:
    """Latents ``(pictures, c, h, w)`` of the class, drawn with seeds 0, 1, … by the pipeline as it is now."""
    found = []
    for start in range(0, prior.pictures, AT_ONCE):
        seeds = range(start, min(start + AT_ONCE, prior.pictures))
        pictures = pipeline.family.sample(
            pipeline.pipe,
            [prior.caption] * len(seeds),
            seeds=list(seeds),
            steps=prior.steps,
            guidance=prior.guidance,
            size=size,
        )
        found.append(pipeline.family.latents(pipeline.pipe, pictures.float() / 127.5 - 1).cpu())
    return torch.cat(found)
