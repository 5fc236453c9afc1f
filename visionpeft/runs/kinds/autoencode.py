"""Autoencoding as the pipeline sees it."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from visionpeft.backbones import Backbone
from visionpeft.data.pictures.module import PictureData
from visionpeft.files import atomic_write
from visionpeft.recipe import Recipe
from visionpeft.runs.kinds.kind import Figure, Kind, Stages
from visionpeft.runs.weights import read_exactly, write_weights
from visionpeft.tasks.autoencode import AutoencodeOptions, AutoencodeTask, Rebuilt
from visionpeft.tasks.base import Task
from visionpeft.tasks.optimize import OptimizerOptions

EXAMPLES = 24
"""Test pictures that the report shows with what came back."""


class Rebuilding(nn.Module):
    """An autoencoder as a function from pictures to pictures."""

    output_name = "pictures"

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images).sample


class Autoencode(Kind[Rebuilt]):
    """Mean PSNR of pictures that were encoded and decoded."""

    figure = Figure("psnr", "PSNR in dB", percent=False)
    module = PictureData

    def heads(self, model: nn.Module) -> tuple[str, ...]:
        return ()

    def outputs(self, data: Any) -> None:
        return None

    def task(
        self, recipe: Recipe, backbone: Backbone, data: Any, prepare: Any, optimizer: OptimizerOptions, seed: int
    ) -> Task:
        section = recipe.task.model_dump(exclude={"name"})
        options = AutoencodeOptions(**section, channels_last=recipe.trainer.channels_last)
        return AutoencodeTask(backbone.model, prepare=prepare, optimizer=optimizer, options=options, seed=seed)

    def answering(self, stages: Stages, network: nn.Module) -> nn.Module:
        return Rebuilding(network)

    def batch(self, stages: Stages) -> Tensor:
        return next(iter(stages.data.ordered("test")))[0]

    def tested(self, stages: Stages, part: str) -> Rebuilt:
        assert isinstance(stages.task, AutoencodeTask) and stages.task.rebuilt is not None, "trainer.test has run"
        return stages.task.rebuilt

    def write(self, path: Path, found: Rebuilt) -> None:
        write_weights(path, asdict(found))

    def read(self, path: Path) -> Rebuilt:
        return Rebuilt(**read_exactly(path, tuple(Rebuilt.__dataclass_fields__)))

    def joined(self, folds: Sequence[Rebuilt]) -> Rebuilt:
        (only,) = folds  # pictures have no folds
        return only

    def scores(self, found: Rebuilt) -> np.ndarray:
        return found.psnr.double().numpy()

    def comparable(self, one: Rebuilt, other: Rebuilt) -> bool:
        return torch.equal(one.positions, other.positions)

    def figures(self, found: Sequence[Rebuilt]) -> dict[str, float]:
        return {"SSIM": fmean(rebuilt.ssim.double().mean().item() for rebuilt in found)}

    def write_examples(self, folder: Path, stages: Stages, found: Rebuilt) -> None:
        """Test pictures from the best to the worst, each beside what came back."""
        order = found.psnr.argsort(descending=True)
        picked = order[torch.linspace(0, len(order) - 1, min(EXAMPLES, len(order))).long()].tolist()
        shown = []
        for number in picked:
            position = int(found.positions[number])
            name = f"examples/{position:05d}.png"
            atomic_write(folder / name, _beside(stages, position))
            shown.append({"file": name, "key": stages.data.table.keys[position], "psnr": found.psnr[number].item()})
        atomic_write(folder / "examples.json", json.dumps({"classes": [], "examples": shown}, indent=1))


@torch.no_grad()
def _beside(stages: Stages, position: int) -> bytes:
    """A picture of the table and its reconstruction, side by side as a PNG file."""
    image, _ = stages.data.ordered("test").dataset[0, position]  # in epoch 0; tests augment nothing
    both = torch.cat([image, stages.task.eval()(image[None])[0]], dim=-1)
    pixels = (both.clamp(-1, 1) * 127.5 + 127.5).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
