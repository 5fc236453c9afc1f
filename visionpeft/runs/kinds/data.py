"""Data modules, opened once for all the trials that share them."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from visionpeft.backbones import InputSpec


@lru_cache(maxsize=4)
def opened(module: type, options: str, images: InputSpec, image_size: int | None, seed: int, **shared: Any) -> Any:
    """A data module, set up.

    Args:
        module: its class.
        options: the card and what else its constructor takes, as JSON (hence hashable).
        images: what the network expects.
        image_size: pixels of a side that the recipe asks for.
        seed: of the draw.
        **shared: objects that several data modules hold together.
    """
    given = json.loads(options)
    data = module(given.pop("card"), seed=seed, input=images, image_size=image_size, **given, **shared)
    data.setup()
    return data
