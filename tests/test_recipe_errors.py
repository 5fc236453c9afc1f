"""A wrong recipe is refused with the file, the key, the value found, and what would be right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny import RECIPE, recipe

from visionpeft.errors import OptionError, UserError
from visionpeft.recipe import check_methods, load_recipe
from visionpeft.recipe.yaml import dump

WRONG = {
    "traner.lr=3": "traner: unknown key. Did you mean 'trainer'",
    "trainer.lrr=3": "trainer.lrr: unknown key. Did you mean 'lr'",
    "trainer.lr=fast": "trainer.lr: should be a number, found 'fast'",
    "trainer.lr=-1": "trainer.lr: should be greater than 0, found -1",
    "trainer.lr=.nan": "trainer.lr: should be",
    "trainer.schedule=cosin": "found 'cosin'. Did you mean 'cosine'",
    "trainer.devices=many": "trainer.devices: should be a whole number or a list or 'auto', found 'many'",
    "trainer.warmup_steps=12": "warmup_steps 12 must be below max_steps 12",
    "trainer.max_steps=3.5": "trainer.max_steps: should be a",
    "backbone=timm/resnet18": "backbone: should be a mapping of keys, found 'timm/resnet18'",
    "backbone.pretrained=3": "backbone.pretrained: should be true or false or a string, found 3",
    "data.card=null": "data.card: should be a string, found None",
    "data.shots=0": "data.shots: should be greater than or equal to 1, found 0",
    "seeds=[]": "seeds: needs at least one value",
    "seeds=[1, 1]": "names one seed twice",
    "targets=[]": "targets: 'lora' needs at least one",
    "name=a/b": "name: should be a plain folder name, found 'a/b'",
    "compare=[{label: x, traner: {}}]": "compare.0.traner: unknown key. Did you mean 'trainer'",
    "compare=[{label: x, trainer: {lrr: 1}}]": "compare.0.trainer.lrr: unknown key. Did you mean 'lr'",
    "tune={lr: []}": "tune.lr: needs at least one value",
    "task.name=segmnt": "task.name: there is no task 'segmnt'. Did you mean 'segment'?",
}


@pytest.mark.parametrize(("override", "message"), WRONG.items(), ids=WRONG)
def test_wrong_values(tmp_path: Path, override: str, message: str):
    path = tmp_path / "mine.yaml"
    path.write_text(dump(RECIPE))
    with pytest.raises(OptionError) as caught:
        load_recipe(path, [override])
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    {
        "trainer.lr": "expected key.path=value",
        "=3": "expected key.path=value",
        "compare.2.label=x": "'compare.2.label: '2' indexes a list|indexes a list",
        "trainer.lr.x=1": "has no keys",
        "trainer.lr=[1": "--set 'trainer.lr=\\[1'",
    }.items(),
)
def test_wrong_overrides(override: str, message: str):
    with pytest.raises(OptionError, match=message):
        load_recipe(recipe(compare=[{"label": "a"}]), [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "line 1, column"),
        ("name: a\nname: b", "key 'name' is given twice"),
        ("- a\n- b", "a recipe is a mapping"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("", "a recipe is a mapping"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, message: str):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(OptionError, match=re.escape(message)) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_shows_near_names():
    with pytest.raises(UserError, match="unknown recipe file or name 'classify/nothing-such'"):
        load_recipe("classify/nothing-such")


@pytest.mark.parametrize(
    ("override", "message"),
    {
        "method.name=lorra": "unknown method 'lorra'. Did you mean 'lora'",
        "method.rnk=4": r"unknown option .rnk..*Did you mean .rank.",
        "method.rank=0": "rank = 0, but it must be a whole number ≥ 1",
        "method.rank=big": "method.rank: lora cannot take 'big'",
        "method.alpha=[1]": "method.alpha",
        "method={name: full, rank: 2}": "'full' has no options, found rank",
    }.items(),
)
def test_methods_are_checked_against_the_registry(override: str, message: str):
    with pytest.raises(UserError, match=message):
        check_methods(load_recipe(RECIPE, [override]))


def test_a_typo_in_a_compared_method_is_found_too():
    made = load_recipe(recipe(compare=[{"label": "other", "method": {"name": "salt", "tp": 0.5}}]))
    with pytest.raises(UserError, match=r"unknown option .tp..*Did you mean .top."):
        check_methods(made)
