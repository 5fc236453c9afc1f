"""Diffusion pipelines of diffusers, opened whole: the denoiser to adapt, and a family that knows how it is called."""

from __future__ import annotations

from visionpeft.backbones.pipelines.family import Family
from visionpeft.backbones.pipelines.opening import open_pipeline
from visionpeft.backbones.pipelines.pipeline import Pipeline

__all__ = ["Family", "Pipeline", "open_pipeline"]
