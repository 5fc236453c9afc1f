"""Recipes: one YAML file says what is adapted, how, on which data, and what it is compared with."""

from __future__ import annotations

from visionpeft.recipe.entries import Entry, entries
from visionpeft.recipe.loading import find_recipe, load_recipe, shipped_recipes
from visionpeft.recipe.methods import build_method, check_methods
from visionpeft.recipe.schema import recipe_schema
from visionpeft.recipe.sections import Recipe

__all__ = [
    "Entry",
    "Recipe",
    "build_method",
    "check_methods",
    "entries",
    "find_recipe",
    "load_recipe",
    "recipe_schema",
    "shipped_recipes",
]
