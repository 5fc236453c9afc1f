"""Pictures drawn while a pipeline trains: the same captions and seeds at every validation."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import lightning
import torch
from PIL import Image

from visionpeft.files import atomic_write


class Previews(lightning.Callback):
    """Writes ``step-<n>.png``, a row of ``count`` pictures, at every validation of a training.

    Args:
        folder: where to.
        count: of pictures, with captions spread evenly over the test part, seeds 0, 1, …
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        part = data.split.test
        texts = [data.captions[part[n * len(part) // self.count]] for n in range(min(self.count, len(part)))]
        drawn = pl_module.sample(texts, seeds=list(range(len(texts))))
        row = torch.cat(list(drawn.permute(0, 2, 3, 1)), dim=1)
        stream = io.BytesIO()
        Image.fromarray(row.numpy()).save(stream, "PNG")
        atomic_write(self.folder / f"step-{trainer.global_step:06d}.png", stream.getvalue())
