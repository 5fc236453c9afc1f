"""How close pictures come back: PSNR and SSIM of every picture."""

from __future__ import annotations

import torch
from torch import Tensor

BEST = 100.0
"""PSNR of a picture that comes back as it was, which would be infinite, in dB."""


def psnr(found: Tensor, wanted: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, ``(N,)``, at most :data:`BEST`.

    Args:
        found, wanted: ``(N, C, H, W)`` in 0 … 1; the peak is 1.
    """
    error = (found - wanted).square().flatten(1).mean(1)
    return -10 * error.clamp(min=10 ** (-BEST / 10)).log10()


def ssim(found: Tensor, wanted: Tensor) -> Tensor:
    """Structural similarity, ``(N,)``, 1 for equal pictures (Wang et al., Image Quality Assessment, TIP 2004).

    Args:
        found, wanted: ``(N, C, H, W)`` in 0 … 1, sides of 11 pixels or more.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = structural_similarity_index_measure(found, wanted, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return torch.atleast_1d(values)
