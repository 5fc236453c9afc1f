"""How a step is measured: CPU seconds taken in turns, and the bytes autograd keeps between forward and backward."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor

from visionpeft.bench.contestants import Contestant


def seconds_a_step(contestants: Sequence[Contestant], repeats: int, progress: Callable[[], None]) -> list[float]:
    """Median CPU seconds (all threads) of a step, each contestant once a round, so that drift meets all alike."""
    taken: list[list[float]] = [[] for _ in contestants]
    for contestant in contestants:
        contestant.step()  # plans are made and memory is claimed
    for _ in range(repeats):
        for contestant, times in zip(contestants, taken, strict=True):
            start = time.process_time()
            contestant.step()
            times.append(time.process_time() - start)
            progress()
    return [median(times) for times in taken]


def saved_bytes(contestant: Contestant) -> int:
    """Bytes kept for backward: storages seen by saved-tensor hooks, each once, without the model's own."""
    own = {t.untyped_storage().data_ptr() for t in (*contestant.model.parameters(), *contestant.model.buffers())}
    kept: dict[int, Tensor] = {}  # holding the tensors keeps their addresses theirs

    def pack(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = contestant.loss()
    total = sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in own)
    del loss
    return total


def merge_seconds(contestant: Contestant) -> tuple[float | None, str]:
    """CPU seconds to fold the adapter into the weights, or None and why it failed; the contestant is spent."""
    if contestant.merge is None:
        return None, ""
    start = time.process_time()
    try:
        contestant.merge()
    except RuntimeError as error:  # other libraries cannot merge every layer they adapt
        return None, f"{type(error).__name__}: {error}"
    return time.process_time() - start, ""
