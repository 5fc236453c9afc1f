"""What a run adds to Lightning's loop: atomic checkpoints, a history, a meter and one progress line."""

from __future__ import annotations

import io
import math
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from visionpeft.files import atomic_write
from visionpeft.runs.kinds import Figure


class AtomicCheckpoints(TorchCheckpointIO):
    """Writes checkpoints so that a kill or a full disk leaves the previous one whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        atomic_write(Path(path), buffer.getvalue())


class Checkpoints(lightning.Callback):
    """Writes ``path`` every ``every`` optimizer steps; the task decides what goes in (trained weights only)."""

    def __init__(self, path: Path, every: int) -> None:
        self.path, self.every, self._written = path, every, -1

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every == 0 and step not in (0, self._written):
            self._written = step  # with gradient accumulation several batches end at one step
            trainer.save_checkpoint(self.path)


class History(lightning.Callback):
    """Every logged figure with its step, for the curves; travels in the checkpoint and so survives a resume."""

    def __init__(self, every: int) -> None:
        self.every, self.rows = every, []

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.global_step % self.every == 0 or trainer.global_step in (1, trainer.max_steps):
            self._record(trainer, "train/")

    def on_validation_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._record(trainer, "val/")

    def _record(self, trainer: lightning.Trainer, prefix: str) -> None:
        found = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith(prefix)}
        if found:
            self.rows.append({"step": trainer.global_step, **found})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": list(self.rows)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])


class Meter(lightning.Callback):
    """Wall seconds, processor seconds and peak memory of training, added up over resumes.

    ``totals`` has the field names of :class:`visionpeft.runs.result.Trial`. Validation counts: it is part of the wait.
    """

    def __init__(self) -> None:
        self.totals: dict[str, Any] = {"seconds": 0.0, "cpu_seconds": 0.0, "peak_memory": 0}
        self._start = (0.0, 0.0)

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        reset_peak_memory(trainer.strategy.root_device)
        self._start = (time.perf_counter(), time.process_time())

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        now = (time.perf_counter(), time.process_time())
        self.totals["seconds"] += now[0] - self._start[0]
        self.totals["cpu_seconds"] += now[1] - self._start[1]
        self._start = now

    def on_train_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._measure_memory(trainer)

    def on_save_checkpoint(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._measure_memory(trainer)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.totals)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.totals = dict(state_dict)

    def _measure_memory(self, trainer: lightning.Trainer) -> None:
        self.totals["peak_memory"] = max(self.totals["peak_memory"], peak_memory(trainer.strategy.root_device))


class Progress(lightning.Callback):
    """One line a training on the terminal: steps, loss, the figure of merit in validation, and the time left."""

    def __init__(self, title: str, figure: Figure) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._figure = figure
        figures = TextColumn("{task.fields[figures]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), figures)
        self._bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True))
        self._task = self._bar.add_task(title, total=None, figures="")

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._bar.update(self._task, total=trainer.max_steps, completed=trainer.global_step)
        if trainer.is_global_zero:
            self._bar.start()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        metrics = trainer.callback_metrics
        loss, merit = (float(metrics.get(key, math.nan)) for key in ("train/loss", f"val/{self._figure.key}"))
        name = f"  val {self._figure.title} {self._figure.text(merit)}"
        figures = f"loss {loss:.3f}" + ("" if math.isnan(merit) else name)
        self._bar.update(self._task, completed=trainer.global_step, figures=figures)

    def teardown(self, *_: Any, **__: Any) -> None:
        self._bar.stop()


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the peak (Linux and CUDA; elsewhere the peak is that of the process)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """Largest memory in use since the reset, in bytes: on the device for CUDA, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), "")
        if line:
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
