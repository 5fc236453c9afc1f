"""Keeping an activation for a backward pass: itself, or the recipe to make it again."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from visionpeft.kernels.eager.guard import ordinary_precision
from visionpeft.kernels.recompute.cpu import Recipe


def keep(ctx: Any, x: Tensor | None, recipe: Recipe | None, *others: Tensor | None) -> None:
    """Save ``x`` (or what its recipe needs, or nothing if ``x`` is None) and ``others`` on an autograd context."""
    if x is None or recipe is None:
        ctx.source = None
        ctx.save_for_backward(*others, x)
    else:
        ctx.source = recipe.function, recipe.rest
        ctx.save_for_backward(*others, *recipe.tensors)


def kept(ctx: Any, others: int) -> tuple[Any, ...]:
    """The activation, then the ``others`` other tensors that :func:`keep` saved."""
    saved = ctx.saved_tensors
    rest, made_from = saved[:others], saved[others:]
    if ctx.source is None:
        return (*made_from, *rest)
    function, arguments = ctx.source
    with ordinary_precision(made_from[0]):
        return (function(*made_from, *arguments), *rest)
