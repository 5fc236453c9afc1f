"""The smallest real run: a one-block ViT with random weights on scikit-learn's digits, in seconds on a CPU."""

from __future__ import annotations

import atexit
import copy
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from visionpeft.pipeline import run
from visionpeft.runs.result import RunResult

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "task": {"name": "classify", "mixup": 0.2},
    "backbone": {
        "name": "timm/vit_tiny_patch16_224",
        "pretrained": False,
        "image_size": 16,
        "options": {"depth": 1, "embed_dim": 24, "num_heads": 2, "patch_size": 8, "drop_rate": 0.1},
    },
    "method": {"name": "lora", "rank": 2, "dropout": 0.1},
    "targets": ["attn.qkv", "mlp.up"],
    "data": {"card": "digits", "shots": 4, "val_shots": 3, "test_shots": 6, "batch_size": 16},
    "trainer": {"max_steps": 12, "lr": 0.01, "warmup_steps": 2, "accelerator": "cpu", "checkpoint_every": 4},
    "logging": {"tensorboard": False, "csv": False},
}


def recipe(**changes: Any) -> dict[str, Any]:
    """A copy of :data:`RECIPE` with top-level sections updated (mappings) or replaced."""
    made = copy.deepcopy(RECIPE)
    for key, value in changes.items():
        made[key] = {**made.get(key, {}), **value} if isinstance(value, dict) and key != "method" else value
    return made


@cache
def finished() -> RunResult:
    """One finished run with two seeds, a tuned rival and a baseline; shared by a process's tests, never changed."""
    folder = Path(tempfile.mkdtemp(prefix="visionpeft-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    data = recipe(
        seeds=[0, 1],
        baselines=["nearest_centroid"],
        compare=[
            {"label": "head only", "method": {"name": "head_only"}, "tune": {"lr": [0.01, 0.1]}},
            {"label": "AdapterTune <r2>", "method": {"name": "adaptertune", "rank": 2}, "targets": ["block"]},
        ],
    )
    return run(data, output=folder / "tiny", progress=False)
