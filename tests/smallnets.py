"""Two small networks, and what must hold when a call on a model is refused: nothing has changed."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from cases import stir
from torch import Tensor, nn

import visionpeft as vp
from visionpeft import errors


class Net(nn.Module):
    """A convolution, a fused qkv, and a head: one of each kind of target."""

    def __init__(self, features: int = 8):
        super().__init__()
        self.stem = nn.Conv2d(3, features, 3)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(features, 3 * features), "unused": nn.Linear(features, 4)})
        self.head = nn.Linear(3 * features, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attn["qkv"](self.stem(x).mean((2, 3))))


def net(features: int = 8) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(features)


def state_of(model: nn.Module) -> tuple:
    """All that a failed call could have changed: classes, keys, bytes, what trains, mode, records."""
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return (
        [(path, type(module), module.training) for path, module in model.named_modules()],
        [(key, t.dtype, t.requires_grad, t.detach().double().numpy().tobytes()) for key, t in tensors],
        set(model.__dict__),
    )


@contextmanager
def refused(model: nn.Module, error: type[Exception], *parts: str):
    """Within it the call must raise ``error`` with these parts in its message, and change nothing."""
    before = state_of(model)
    with pytest.raises(error) as caught:
        yield
    assert isinstance(caught.value, errors.UserError)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    assert state_of(model) == before


def adapted(method: str = "lora", target: str = "head", **options) -> Net:
    model = net()
    vp.adapt(model, method, [target], **options)
    return stir(model)  # pyright: ignore[reportReturnType]


def normed() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(6, momentum=1e-4)  # moves by less than bfloat16 could tell
        return nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.Flatten(), nn.Linear(6 * 16, 2))


def images(seed: int = 1) -> Tensor:
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
