"""The ink style: a deterministic filter whose result differs from its source in tone and line, not in colour alone."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from visionpeft.data.pictures.styles.options import InkStyle

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601
_MEANT_FOR = 64  # pixels of a side


def ink(images: np.ndarray, style: InkStyle) -> np.ndarray:
    """Pictures uint8 ``(N, S, S, 3)`` in two colours: ink where they are dark or change abruptly, else paper.

    With ``v`` the picture blurred by ``blur`` and ``L`` its luminance, ink covers a place by the larger of
    ``σ((tone − L) / (softness·tone))`` and ``σ((|∇v| − outline) / (softness·outline))``, where ``|∇v|`` is the steepest
    colour channel's: an outline between two colours of equal luminance is drawn, too.
    """
    scale = images.shape[1] / _MEANT_FOR
    sigma = style.blur * scale
    smooth = gaussian_filter(images / 255.0, (0, sigma, sigma, 0))
    fill = _ramp(style.tone - smooth @ _LUMA, style.softness * style.tone)
    down, across = np.gradient(smooth, axis=(1, 2))
    steep = scale * np.hypot(down, across).max(-1)
    line = _ramp(steep - style.outline, style.softness * style.outline)
    cover = np.maximum(fill, line)[..., None]
    drawn = cover * np.array(style.ink) + (1 - cover) * np.array(style.paper)
    return np.round(drawn).astype(np.uint8)


def _ramp(excess: np.ndarray, width: float) -> np.ndarray:
    return expit(excess / width)
