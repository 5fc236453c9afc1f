"""From a picture's file to a square of RGB, whatever the file's mode."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from visionpeft.data.extent import UNREADABLE, pixels
from visionpeft.data.pictures.cards import PictureRule
from visionpeft.data.tables import MAX_PIXELS, eight_bits
from visionpeft.errors import DataError

"""What Pillow raises for files that are missing, damaged or no images."""


def square(path: Path, rule: PictureRule) -> np.ndarray:
    """A picture as uint8 ``(size, size, 3)``.

    Turned upright as its camera says; grey values are repeated, 16 bits become 8, palettes and CMYK become RGB,
    transparency and margins white; of an animation the first frame is taken.

    Raises:
        DataError: the file is missing, damaged, no image, has 32 bits a value, or more than 100 megapixels.
    """
    if pixels(path) > MAX_PIXELS:
        raise DataError(f"{path} has more than {MAX_PIXELS // 1_000_000} megapixels")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it begins below our own limit
            with Image.open(path) as opened:
                picture = _rgba(ImageOps.exif_transpose(opened))
    except UNREADABLE as error:
        raise DataError(f"cannot read the image {path}: {error}") from error
    fit = ImageOps.pad if rule.fit == "pad" else ImageOps.fit
    shaped = fit(picture, (rule.size, rule.size), Image.Resampling.BICUBIC)  # Pillow's averages where it shrinks
    white = Image.new("RGBA", shaped.size, "white")
    return np.asarray(Image.alpha_composite(white, shaped).convert("RGB"))


def _rgba(picture: Image.Image) -> Image.Image:
    picture = eight_bits(picture)
    return (picture.convert("RGB") if picture.mode == "CMYK" else picture).convert("RGBA")
