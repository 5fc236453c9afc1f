"""Which image sizes an exported graph takes: asked for while exporting, and found out by trying."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from visionpeft.export.parity import Parity, ParityError, compare, main_output
from visionpeft.surgery.parts import has_parts
from visionpeft.tasks.windows import divisor_of

Program = TypeVar("Program")


class MainOutput(nn.Module):
    """A network without its side outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return main_output(self.model(images))


def exported(export: Callable[[dict[int, Any]], Program], model: nn.Module, images: Tensor) -> Program:
    """Call ``export`` with a free batch size, and for class maps with free spatial axes where that succeeds."""
    batch: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    with torch.no_grad():
        if has_parts(model):
            try:
                return export(dict.fromkeys([0, *range(2, images.ndim)], torch.export.Dim.AUTO))
            except Exception:  # the exporters raise many things; with fixed sides there is less to go wrong
                pass
        return export(batch)


def with_sizes(parity: Parity, model: nn.Module, artifact: Callable[[Tensor], Any], images: Tensor) -> Parity:
    """``parity`` with a note on the sizes that the artifact of a segmentation network takes.

    A larger image that the network itself takes is tried; the artifact must refuse it or say the same.

    Raises:
        ParityError: it says something else.
    """
    if not has_parts(model):
        return parity
    sides, divisor = tuple(images.shape[2:]), divisor_of(model, images)
    larger = F.pad(images[:1], [0, 2 * divisor] * len(sides))
    try:
        compare(model, artifact, larger, "larger")
    except ParityError:
        raise
    except Exception:  # what a graph raises for an input that it was not made for
        return replace(parity, note=f"images of {'×'.join(map(str, sides))} only, any number of them")
    sides_taken = f"sides that are multiples of {divisor}" if divisor > 1 else "of any size"
    return replace(parity, note=f"any number of images, {sides_taken}")
