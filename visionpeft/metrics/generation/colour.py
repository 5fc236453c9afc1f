"""The same drawing in other colours: what a judge of style must not be moved by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from visionpeft.errors import unknown
from visionpeft.metrics.generation.space import LUMA, check_pictures

_COLOURS = 6  # of a palette


def recolour(images: Tensor, palettes: Tensor, way: str = "histogram", seed: int = 0) -> Tensor:
    """Every picture in the colours of one of ``palettes``, drawn at random; uint8 ``(N, 3, H, W)``.

    Args:
        images: uint8 ``(N, 3, H, W)``, whose drawing is kept.
        palettes: uint8 ``(M, 3, h, w)`` pictures, whose colours are taken.
        way: ``"histogram"`` matches each channel's distribution; ``"gradient"`` gives the darkest places the palette's
            darkest colours, and so on; ``"duotone"`` shades from its darkest to its brightest colour; ``"moments"``
            matches mean and spread of each channel; ``"nearest"`` takes the nearest of its six main colours.
        seed: of the draw.

    Raises:
        OptionError: something is no uint8 picture.
        UnknownNameError: there is no such way.
    """
    check_pictures(images)
    check_pictures(palettes, "palettes")
    if way not in RECOLOURINGS:
        raise unknown("way to recolour", way, RECOLOURINGS)
    drawn = torch.randint(len(palettes), (len(images),), generator=torch.Generator().manual_seed(seed))
    pairs = zip(_channels_last(images), _channels_last(palettes)[drawn.numpy()], strict=True)
    found = np.stack([RECOLOURINGS[way](picture, palette) for picture, palette in pairs])
    return torch.from_numpy(np.round(found).clip(0, 255).astype(np.uint8)).permute(0, 3, 1, 2).contiguous()


def _channels_last(images: Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).cpu().numpy().astype(np.float64)


def _histogram(picture: np.ndarray, palette: np.ndarray) -> np.ndarray:
    from skimage.exposure import match_histograms

    return match_histograms(picture, palette, channel_axis=2)


def _gradient(picture: np.ndarray, palette: np.ndarray) -> np.ndarray:
    colours = _by_luminance(palette)
    grey = picture @ LUMA
    share = (grey - grey.min()) / max(float(np.ptp(grey)), 1)
    return colours[(share * (len(colours) - 1)).astype(int)]


def _duotone(picture: np.ndarray, palette: np.ndarray) -> np.ndarray:
    colours = _by_luminance(palette)
    few = max(1, len(colours) // 32)
    dark, bright = colours[:few].mean(0), colours[-few:].mean(0)
    return dark + (bright - dark) * (picture @ LUMA)[..., None] / 255


def _moments(picture: np.ndarray, palette: np.ndarray) -> np.ndarray:
    axes = (0, 1)
    return (picture - picture.mean(axes)) / (picture.std(axes) + 1) * palette.std(axes) + palette.mean(axes)


def _nearest(picture: np.ndarray, palette: np.ndarray) -> np.ndarray:
    from sklearn.cluster import KMeans

    pixels = palette.reshape(-1, 3)
    count = min(_COLOURS, len(np.unique(pixels, axis=0)))
    means = KMeans(count, n_init=1, random_state=0)  # pyright: ignore[reportArgumentType] (a number is right)
    colours = means.fit(pixels).cluster_centers_
    return colours[np.square(picture[..., None, :] - colours).sum(-1).argmin(-1)]


def _by_luminance(palette: np.ndarray) -> np.ndarray:
    pixels = palette.reshape(-1, 3)
    return pixels[np.argsort(pixels @ LUMA, kind="stable")]


RECOLOURINGS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "histogram": _histogram,
    "gradient": _gradient,
    "duotone": _duotone,
    "moments": _moments,
    "nearest": _nearest,
}
"""Ways of :func:`recolour`."""
