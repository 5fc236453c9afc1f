"""Gradients on several gloo processes are those of one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from distributed_worker import adapted_network, batch, gradients

WORKER = Path(__file__).with_name("distributed_worker.py")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "cp_lora", "dora"])
@pytest.mark.parametrize(("wrapping", "world"), [("ddp", 1), ("ddp", 2), ("fsdp2", 2)])
def test_gradients_are_those_of_one_process(tmp_path: Path, wrapping: str, world: int, method: str):
    commands = [
        [sys.executable, str(WORKER), str(tmp_path), str(rank), str(world), wrapping, method] for rank in range(world)
    ]
    workers = [subprocess.Popen(c, stderr=subprocess.PIPE, text=True, cwd=WORKER.parent) for c in commands]
    errors = [worker.communicate(timeout=240)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * world, errors[0][-2000:]
    found = torch.load(tmp_path / "gradients.pt", weights_only=True)

    model = adapted_network(method)
    model(batch()).square().mean().backward()
    expected = gradients(model)
    assert found.keys() == expected.keys()
    assert len(expected) > 0
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-5, atol=1e-6), key
