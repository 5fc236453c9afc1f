"""How large a picture is, by its header alone, and what reading a broken one raises."""

from __future__ import annotations

import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from visionpeft.data.tables import MAX_PIXELS
from visionpeft.errors import DataError

UNREADABLE = (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError)


def pixels(path: Path) -> int:
    """Width times height by the file's header.

    Raises:
        DataError: the file is missing, or no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                return picture.width * picture.height
    except Image.DecompressionBombError:
        return MAX_PIXELS + 1
    except UNREADABLE as error:
        raise DataError(f"cannot read the image {path}: {error}") from error
