"""A factor: the shape of one small tensor, how it starts, and whether it is trained and saved.

A start is a function ``(shape, origin) -> tensor``. The :class:`Origin` is the frozen weight the factor belongs to;
what several factors need from it (its SVD) is computed once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


class Origin:
    """The canonical frozen weight of a site, in at least float32, and the random stream of the starts.

    Args:
        weight: ``(out, in/groups, *kernel)``.
        generator: source of randomness; the global stream when None. No seed is ever reset.
    """

    def __init__(self, weight: Tensor, generator: torch.Generator | None = None):
        self.weight = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
        self.generator = generator

    @cached_property
    def svd(self) -> dict[str, Tensor]:
        """Thin SVD of ``weight.reshape(out, -1)`` as ``U: (out, n)``, ``S: (n,)``, ``Vh: (n, fan_in)``."""
        parts = torch.linalg.svd(self.weight.flatten(1), full_matrices=False)
        return dict(zip(("U", "S", "Vh"), parts, strict=True))

    def empty(self, shape: tuple[int, ...]) -> Tensor:
        return torch.empty(shape, dtype=self.weight.dtype, device=self.weight.device)


Start = Callable[[tuple[int, ...], Origin], Tensor]


@dataclass(frozen=True)
class Factor:
    """One tensor of an adapter at one site.

    Args:
        shape: exact shape.
        start: how it is filled.
        trainable: False makes it a frozen buffer.
        saved: False for buffers that follow from the options alone and need not be in the file.
    """

    shape: tuple[int, ...]
    start: Start
    trainable: bool = True
    saved: bool = True

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def zeros(shape: tuple[int, ...], origin: Origin) -> Tensor:
    return origin.empty(shape).zero_()


def ones(shape: tuple[int, ...], origin: Origin) -> Tensor:
    return origin.empty(shape).fill_(1.0)


def kaiming(fan_in: int) -> Start:
    """Kaiming-uniform with a = √5, torch's own start of Linear and Conv: bound ``1/√fan_in``."""
    bound = 1.0 / math.sqrt(max(fan_in, 1))
    return lambda shape, origin: origin.empty(shape).uniform_(-bound, bound, generator=origin.generator)


def xavier(fan_in: int, fan_out: int) -> Start:
    """Xavier-uniform: bound ``√(6 / (fan_in + fan_out))``."""
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    return lambda shape, origin: origin.empty(shape).uniform_(-bound, bound, generator=origin.generator)


def normal(std: float) -> Start:
    return lambda shape, origin: origin.empty(shape).normal_(0.0, std, generator=origin.generator)


def centred(noise: float = 0.1) -> Start:
    """``(k, R)``: a delta on the middle tap plus small noise, so that a product over axes keeps its size."""

    def start(shape: tuple[int, ...], origin: Origin) -> Tensor:
        taps = origin.empty(shape).normal_(0.0, noise, generator=origin.generator)
        taps[shape[0] // 2] += 1.0
        return taps

    return start


def svd_part(name: str) -> Start:
    """``U``, ``S`` or ``Vh`` of the weight, cut to the leading components that the shape asks for."""

    def start(shape: tuple[int, ...], origin: Origin) -> Tensor:
        part = origin.svd[name]
        return part[tuple(slice(0, n) for n in shape)].contiguous()

    return start


def row_norms(shape: tuple[int, ...], origin: Origin) -> Tensor:
    """The norm of each output row over all other axes."""
    return squared_rows(origin.weight).sqrt()


def squared_rows(weight: Tensor) -> Tensor:
    """Sum of squares of each output row: ``(out, …) -> (out,)``."""
    return weight.flatten(1).square().sum(1)
