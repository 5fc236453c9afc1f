"""What the denoiser is told beside the noisy picture: captions, encoded once each by the pipeline's own encoders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from visionpeft.backbones.pipelines import Pipeline

AT_ONCE = 64
"""Captions encoded in one pass."""


class Conditions:
    """Encoded captions, kept on the CPU: one a distinct text, so that seeds and epochs share them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._kept: dict[str, dict[str, Tensor]] = {}

    def of(self, texts: Sequence[str], device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """What :meth:`visionpeft.backbones.pipelines.Family.conditioning` says of ``texts``, batch-first."""
        self._encode([text for text in dict.fromkeys(texts) if text not in self._kept])
        rows = [self._kept[text] for text in texts]
        return {name: torch.cat([row[name] for row in rows]).to(device) for name in rows[0]} if rows else {}

    @torch.no_grad()
    def _encode(self, texts: Sequence[str]) -> None:
        for start in range(0, len(texts), AT_ONCE):
            part = texts[start : start + AT_ONCE]
            found = self._pipeline.family.conditioning(self._pipeline.pipe, part)
            for row, text in enumerate(part):
                self._kept[text] = {name: values[row : row + 1].cpu() for name, values in found.items()}
