"""Keeping tensors for a backward pass: themselves, or the recipes to make them again."""

from __future__ import annotations

from itertools import islice
from typing import Any

from torch import Tensor

from visionpeft.kernels.eager.guard import ordinary_precision
from visionpeft.kernels.recompute.cpu import Recipe


def keep(ctx: Any, *values: Any) -> None:
    """Save tensors (or None) on an autograd context; in place of a :class:`Recipe`, what it needs."""
    saved: list[Tensor | None] = []
    ctx.recipes = []
    for value in values:
        if isinstance(value, Recipe):
            saved += value.tensors
            ctx.recipes.append((len(value.tensors), value.function, value.rest))
        else:
            saved.append(value)
            ctx.recipes.append(None)
    ctx.save_for_backward(*saved)


def kept(ctx: Any) -> list[Any]:
    """What :func:`keep` was given, recipes followed."""
    return made_again(ctx.recipes, ctx.saved_tensors)


def made_again(recipes: list[Any], saved: tuple[Tensor | None, ...]) -> list[Any]:
    """Each value from its share of the saved tensors."""
    tensors, found = iter(saved), []
    for recipe in recipes:
        if recipe is None:
            found.append(next(tensors))
            continue
        count, function, rest = recipe
        own = tuple(islice(tensors, count))
        with ordinary_precision(own[0]):  # pyright: ignore[reportArgumentType]
            found.append(function(*own, *rest))
    return found


def of_its_own(parameter: Tensor | None) -> Tensor | None:
    """A copy of a small parameter, for recipes that go into another layer's backward pass.

    By then FSDP may have taken the storage of this layer's parameters away.
    """
    return None if parameter is None else parameter.detach().clone()
