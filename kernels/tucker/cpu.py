"""A filter bank from a small core and one factor an axis: what Tucker decompositions are made of.

Axis by axis, ordinary autograd multiplies batches of tiny matrices and copies the bank at every turn, which for a 3×3
layer took longer than the convolution's own gradients. Here the factors of the kernel act as one small matrix, that of
the channels as another, and the gradient of the whole bank is read twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from visionpeft.kernels.eager.guard import ordinary_precision, usable
from visionpeft.kernels.recompute.cpu import made_by
from visionpeft.kernels.tucker import reference


def tucker(core: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """``bank[q, i, h, w, …] = Σ core[q, a, b, c, …]·factors[0][i, a]·factors[1][h, b]·factors[2][w, c]·…``

    Args:
        core: ``(R, r_0, r_1, …)``.
        factors: ``(n_0, r_0)`` of the channels; then one ``(n_j, r_j)`` for every further axis, or none for any: then
            these stay as they are.

    Returns:
        ``(R, n_0, n_1, …)``. Gradients reach the core and the factors, once: a gradient of the gradient raises
        RuntimeError. Where the fused operations may not run, ordinary ones do.
    """
    if core.dim() == 2:
        return core @ factors[0].t()
    if not usable(core, *factors):
        return reference.tucker(core, factors)
    return made_by(_Tucker.apply(core, *factors), _made, (core, *factors))


class _Tucker(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, core: Tensor, *factors: Tensor) -> Tensor:
        ctx.save_for_backward(core, *factors)
        return _made(core, *factors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        core, channels, *taps = ctx.saved_tensors
        with ordinary_precision(gradient):
            pixels = core[0, 0].numel()
            filters, kernel = _through_taps(core, taps)
            of_bank = _channels_in_rows(gradient.reshape(len(core), len(channels), -1))
            of_channels = of_bank @ _channels_in_rows(filters).t()
            of_filters = (channels.t() @ of_bank).view(core.shape[1], len(core), -1).transpose(0, 1)
            if kernel is None:
                return of_filters.reshape(core.shape), of_channels
            of_filters = of_filters.reshape(-1, len(kernel))
            of_kernel = of_filters.t() @ core.reshape(-1, pixels)
            return (of_filters @ kernel).view(core.shape), of_channels, *_kronecker_gradients(of_kernel, taps)


def _made(core: Tensor, channels: Tensor, *taps: Tensor) -> Tensor:
    filters, _ = _through_taps(core, taps)
    bank = (channels @ _channels_in_rows(filters)).view(len(channels), len(core), -1).transpose(0, 1)
    return bank.reshape(len(core), len(channels), *([len(tap) for tap in taps] or core.shape[2:]))


def _through_taps(core: Tensor, taps: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """The core with its kernel axes multiplied out, ``(R, r, K)``, and the matrix ``(K, r_1·r_2·…)`` that did it."""
    if not taps:
        return core.flatten(2), None
    kernel = reduce(torch.kron, taps)
    return (core.reshape(-1, kernel.shape[1]) @ kernel.t()).view(*core.shape[:2], -1), kernel


def _channels_in_rows(bank: Tensor) -> Tensor:
    """``(R, n, K)`` as ``(n, R·K)``: one product serves all filters."""
    return bank.transpose(0, 1).reshape(bank.shape[1], -1)


def _kronecker_gradients(gradient: Tensor, taps: Sequence[Tensor]) -> list[Tensor]:
    """The gradient ``(K, r_1·r_2·…)`` of a Kronecker product, for each of its matrices ``(k_j, r_j)``."""
    if len(taps) == 1:
        return [gradient]
    first, rest = taps[0], reduce(torch.kron, taps[1:])
    blocks = gradient.view(len(first), len(rest), first.shape[1], -1).transpose(1, 2).reshape(first.numel(), -1)
    of_first = (blocks @ rest.reshape(-1, 1)).view(first.shape)
    of_rest = (first.reshape(1, -1) @ blocks).view(rest.shape)
    return [of_first, *_kronecker_gradients(of_rest, taps[1:])]
