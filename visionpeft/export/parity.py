"""Parity: does the artifact say what the adapted model says? Printed before success is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visionpeft.errors import VisionPEFTError

TOLERANCE = 1e-3
"""Largest difference allowed, as a fraction of the adapted model's largest logit."""


LOGITS = "logits"
"""What networks answer, unless their class says something else as ``output_name``."""


class ParityError(VisionPEFTError):
    """An artifact computes something else than the model it was made from."""


@dataclass(frozen=True)
class Parity:
    """Largest difference of logits on a batch, absolute and as a fraction of the largest logit.

    ``same_class`` is the share of images, or of the ``voxels`` of class maps, that get the same class from both.
    ``output`` says what is compared; of anything but logits there is no class. ``note`` says what else there is to know
    of the artifact, such as which sizes it takes.
    """

    images: int
    difference: float
    relative: float
    same_class: float
    voxels: int = 0
    note: str = ""
    output: str = LOGITS

    def __str__(self) -> str:
        found = f"{self.output} differ by at most {self.difference:.1e} ({self.relative:.1e} relative)"
        same = f"{self.same_class:.2%} of {self.voxels:,} voxels" if self.voxels else f"{self.same_class:.0%}"
        found = f"{self.images} images: {found}" + (f", {same} the same class" if self.output == LOGITS else "")
        return f"{found}; {self.note}" if self.note else found


@torch.inference_mode()
def compare(adapted: nn.Module, artifact: Callable[[Tensor], Any], images: Tensor, kind: str) -> Parity:
    """Run both on ``images (B, C, *spatial)``; of several class maps the first, main one counts.

    Raises:
        ParityError: the logits differ by more than :data:`TOLERANCE`.
    """
    adapted.eval()
    wanted, found = main_output(adapted(images)).float(), main_output(artifact(images)).float()
    difference = (wanted - found).abs().max().item()
    relative = difference / max(wanted.abs().max().item(), 1e-12)
    same = (wanted.argmax(1) == found.argmax(1)).float().mean().item()
    voxels = wanted[:, 0].numel() if wanted.ndim > 2 else 0
    output = getattr(adapted, "output_name", LOGITS)
    parity = Parity(len(images), difference, relative, same, voxels, output=output)
    if not relative <= TOLERANCE:  # also catches NaN
        raise ParityError(f"the {kind} artifact disagrees with the adapted model: {parity}")
    return parity


def main_output(output: Any) -> Tensor:
    """The class scores or class maps of a network: of several (deep supervision) the first."""
    return output if isinstance(output, Tensor) else output[0]
