"""The published JSON Schema says what the code accepts."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

from visionpeft.methods import methods
from visionpeft.recipe import recipe_schema
from visionpeft.recipe.sections import LIGHTNING_KEYS, Compare, Recipe, Trainer

REFRESH = "run: visionpeft recipes schema --output recipes/schema.json"


def branches(schema: dict) -> dict[str, dict]:
    """Method branches by name (the open branch of ``dora(…)`` left out)."""
    listed = schema["$defs"]["Method"].pop("oneOf")
    return {b["properties"]["name"]["const"]: b for b in listed if "const" in b["properties"]["name"]}


def test_the_published_schema_is_that_of_the_code(root: Path):
    published, current = json.loads((root / "recipes/schema.json").read_text()), recipe_schema()
    known, now = branches(published), branches(current)
    assert published == current, REFRESH
    # A method that was added since is allowed: adding one is one file.
    assert {name: now[name] for name in known} == known, REFRESH


def test_every_method_and_option_is_in_the_schema():
    found = branches(recipe_schema())
    for name, cls in methods().items():
        options = set(inspect.signature(cls).parameters)
        assert set(found[name]["properties"]) == {"name", *options}
        assert found[name]["additionalProperties"] is False


def test_trainer_arguments_exist_in_lightning():
    import lightning

    accepted = inspect.signature(lightning.Trainer.__init__).parameters
    assert set(LIGHTNING_KEYS) <= set(accepted)
    assert {"precision", "accelerator", "devices", "strategy", "num_nodes"} <= set(LIGHTNING_KEYS)
    assert not {"callbacks", "logger", "plugins"} & set(Trainer.model_fields), "a recipe names no Python objects"


def test_compare_entries_offer_only_keys_of_the_recipe():
    assert set(Compare.model_fields) - {"label"} <= set(Recipe.model_fields)
