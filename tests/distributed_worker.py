"""One of several gloo processes: adapt, wrap, take gradients, and leave them in a file.

Run as ``python distributed_worker.py FOLDER RANK WORLD WRAPPING METHOD``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from cases import CASES, stir
from torch import Tensor, nn

import visionpeft as vp


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(128, 16), nn.Linear(16, 4)
        )


def adapted_network(method: str) -> nn.Module:
    model, (name, options) = network(), CASES[method]
    for adapter in ("first", "second"):  # one of them inactive: nobody may wait for its gradients
        vp.adapt(model, name, ["0", "3"], adapter, generator=torch.Generator().manual_seed(1), **options)
    stir(model)
    vp.activate(model, "first")
    return model


def batch() -> Tensor:
    return torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(2))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {key: p.grad for key, p in vp.adapter_parameters(model, "first").items() if p.grad is not None}


def main(folder: Path, rank: int, world: int, wrapping: str, method: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    model = adapted_network(method)
    wrapped: nn.Module = model
    if wrapping == "ddp":
        wrapped = nn.parallel.DistributedDataParallel(model)
    else:
        from torch.distributed.fsdp import fully_shard

        for block in (model[0], model[3], model):  # pyright: ignore[reportIndexIssue]
            fully_shard(block)
    for _ in range(2):  # a second step finds out whether the first left something waiting
        wrapped.zero_grad()
        wrapped(batch().chunk(world)[rank]).square().mean().backward()
    found = {key: g.full_tensor() if hasattr(g, "full_tensor") else g for key, g in gradients(model).items()}
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
