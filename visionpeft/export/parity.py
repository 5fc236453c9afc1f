"""Parity: does the artifact say what the adapted model says? Printed before success is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionpeft.errors import VisionPEFTError

TOLERANCE = 1e-3
"""Largest difference allowed, as a fraction of the adapted model's largest logit."""


class ParityError(VisionPEFTError):
    """An artifact computes something else than the model it was made from."""


@dataclass(frozen=True)
class Parity:
    """Largest difference of logits on a batch, absolute and as a fraction of the largest logit."""

    images: int
    difference: float
    relative: float
    same_class: float

    def __str__(self) -> str:
        return (
            f"{self.images} images: logits differ by at most {self.difference:.1e} ({self.relative:.1e} relative), "
            f"{self.same_class:.0%} the same class"
        )


@torch.inference_mode()
def compare(adapted: nn.Module, artifact: Callable[[Tensor], Tensor], images: Tensor, kind: str) -> Parity:
    """Run both on ``images (B, C, H, W)``.

    Raises:
        ParityError: the logits differ by more than :data:`TOLERANCE`.
    """
    adapted.eval()
    wanted, found = adapted(images).float(), artifact(images).float()
    difference = (wanted - found).abs().max().item()
    relative = difference / max(wanted.abs().max().item(), 1e-12)
    same = (wanted.argmax(1) == found.argmax(1)).float().mean().item()
    parity = Parity(len(images), difference, relative, same)
    if not relative <= TOLERANCE:  # also catches NaN
        raise ParityError(f"the {kind} artifact disagrees with the adapted model: {parity}")
    return parity
