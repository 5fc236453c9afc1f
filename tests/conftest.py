"""Shared fixtures, and the rules of a test run: no hub, no screen, no user cache, one thread a worker."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# `python -m pytest` puts the working folder on the path, where the card folder `datasets/` would pass for the
# Hugging Face package of that name. Plain `pytest` does not; this makes both alike.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")


def pytest_configure(config: pytest.Config) -> None:
    """Give each xdist worker one thread: two workers with two threads each fight over two cores."""
    if hasattr(config, "workerinput"):
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout's root folder."""
    return ROOT


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep the user's cache out of the tests, and the tests out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VISIONPEFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``VISIONPEFT_CACHE`` for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("VISIONPEFT_CACHE", str(folder))
    return folder


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest):
    """Each device of this machine; the others are skipped, and say so."""
    import torch

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture(params=["float64", "float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest):
    """The three dtypes that every law holds for."""
    import torch

    return getattr(torch, request.param)


@pytest.fixture
def generator():
    """A seeded generator of the test's own; no test touches the global seed."""
    import torch

    return torch.Generator().manual_seed(0)
