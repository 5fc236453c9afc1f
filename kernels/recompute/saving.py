"""Keeping an activation for a backward pass: itself, or the recipe to make it again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from visionpeft.kernels.eager.guard import ordinary_precision
from visionpeft.kernels.recompute.cpu import Recipe


def keep(ctx: Any, x: Tensor | None, recipe: Recipe | None, *others: Tensor | None) -> None:
    """Save ``x`` (or what its recipe needs, or nothing if None) and ``others`` on an autograd context."""
    ctx.recipe = None if recipe is None else replace(recipe, tensors=())
    ctx.save_for_backward(*others, *((x,) if recipe is None else recipe.tensors))


def kept(ctx: Any, others: int) -> tuple[Any, ...]:
    """The activation, then the ``others`` other tensors that :func:`keep` saved."""
    saved = ctx.saved_tensors
    rest, source = saved[:others], saved[others:]
    if ctx.recipe is None:
        return (*source, *rest)
    with torch.no_grad(), ordinary_precision(source[0]):
        return (ctx.recipe.made_from(source), *rest)
