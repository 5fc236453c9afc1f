"""Recipes: what is read is what was meant, and the hash stands for the meaning."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import RECIPE, recipe

from visionpeft.errors import UserError
from visionpeft.recipe import entries, load_recipe, shipped_recipes
from visionpeft.recipe.overrides import apply_overrides
from visionpeft.recipe.yaml import dump, parse
from visionpeft.runs.folder import resolved_text


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [("3e-3", 0.003), ("1.5", 1.5), (".5", 0.5), ("7", 7), ("true", True), ("no", "no"), ("off", "off"), ("", None)],
)
def test_scalars_are_what_people_mean(text: str, value: object):
    found = parse(f"key: {text}", "test")["key"]
    assert found == value and type(found) is type(value)


def test_dumped_yaml_reads_back():
    content = load_recipe(RECIPE).content()
    assert parse(dump(content), "test") == content


def test_the_resolved_recipe_is_the_same_recipe(tmp_path: Path):
    first = load_recipe(RECIPE, ["trainer.lr=3e-3", "seeds=[3, 5]"])
    again = load_recipe(written(tmp_path / "r.yaml", resolved_text(first)))
    assert again == first and again.digest == first.digest


def test_the_hash_ignores_order_and_defaults_and_sees_every_value():
    base = load_recipe(RECIPE)
    assert load_recipe(dict(reversed(RECIPE.items()))).digest == base.digest
    assert load_recipe(RECIPE, ["trainer.schedule=cosine"]).digest == base.digest
    assert load_recipe(RECIPE, ["method.rank=3"]).digest != base.digest


def test_recipes_cannot_be_changed_after_loading():
    with pytest.raises(ValueError, match="frozen"):
        load_recipe(RECIPE).trainer.lr = 1.0  # pyright: ignore[reportAttributeAccessIssue]


def test_overrides_reach_into_sections_and_lists_and_leave_the_source_alone():
    data = {"trainer": {"lr": 0.1}, "compare": [{"label": "a"}, {"label": "b"}]}
    changed = apply_overrides(data, ["trainer.lr=3e-4", "compare.1.trainer.lr=1e-2", "logging.wandb=true"])
    assert changed["trainer"]["lr"] == 3e-4
    assert changed["compare"][1] == {"label": "b", "trainer": {"lr": 0.01}}
    assert changed["logging"] == {"wandb": True}
    assert data == {"trainer": {"lr": 0.1}, "compare": [{"label": "a"}, {"label": "b"}]}


def test_entries_inherit_what_they_do_not_change():
    made = load_recipe(
        recipe(
            tune={"lr": [0.1, 0.2]},
            compare=[
                {"label": "own rate", "method": {"name": "full"}, "trainer": {"lr": 0.5}},
                {"label": "same grid", "method": {"name": "head_only"}},
                {"label": "own grid", "method": {"name": "head_only"}, "tune": {"lr": [0.3]}},
            ],
        )
    )
    main, own, same, grid = entries(made)
    assert main.label == "lora" and main.recipe.tune is not None and main.recipe.tune.lr == [0.1, 0.2]
    assert own.recipe.trainer.lr == 0.5 and own.recipe.tune is None
    assert own.recipe.trainer.max_steps == main.recipe.trainer.max_steps
    assert same.recipe.tune == main.recipe.tune
    assert grid.recipe.tune is not None and grid.recipe.tune.lr == [0.3]


def test_a_sweep_unfolds_into_one_entry_a_value():
    found = entries(load_recipe(recipe(sweep={"method.rank": [1, 2]}, label="LoRA")))
    assert [(e.label, e.swept, e.recipe.method.options["rank"]) for e in found] == [
        ("LoRA, rank 1", 1, 1),
        ("LoRA, rank 2", 2, 2),
    ]


def test_a_sweep_of_the_data_is_that_of_every_entry_and_of_the_method_the_main_ones_alone():
    rivals = [{"label": "head", "method": {"name": "head_only"}}]
    shots = entries(load_recipe(recipe(sweep={"data.shots": [2, 4]}, compare=rivals, label="LoRA")))
    assert [(e.label, e.group, e.main, e.recipe.data.shots) for e in shots] == [  # pyright: ignore
        ("LoRA, shots 2", "LoRA", True, 2),
        ("LoRA, shots 4", "LoRA", True, 4),
        ("head, shots 2", "head", False, 2),
        ("head, shots 4", "head", False, 4),
    ]
    ranks = entries(load_recipe(recipe(sweep={"method.rank": [1, 2]}, compare=rivals)))
    assert [e.label for e in ranks] == ["lora, rank 1", "lora, rank 2", "head"]


def test_two_entries_may_not_share_a_folder():
    twice = recipe(compare=[{"label": "A b"}, {"label": "a B"}])
    with pytest.raises(UserError, match="used twice"):
        entries(load_recipe(twice))


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_shipped_recipes_are_valid(name: str):
    from visionpeft.recipe import check_methods

    made = load_recipe(name)
    check_methods(made)
    assert made.name == name.rpartition("/")[2], "the run folder is named after the file"
