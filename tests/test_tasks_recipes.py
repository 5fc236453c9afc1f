"""What shipped recipes promise: their header names the command, and a source model fits those that adapt it."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

import pytest

from visionpeft.backbones import load
from visionpeft.backbones.pipelines.small import SMALL
from visionpeft.files import resource
from visionpeft.recipe import load_recipe, shipped_recipes

NAMES = sorted(shipped_recipes())


def header(path: Path) -> str:
    comments = takewhile(lambda line: line.startswith("#"), path.read_text().splitlines())
    return "\n".join(line.removeprefix("#").strip() for line in comments)


def adapts_a_trained_source(name: str) -> bool:
    return str(load_recipe(name).backbone.pretrained).startswith("run:")


@pytest.mark.parametrize("name", NAMES)
def test_the_header_gives_the_command_that_runs_the_recipe(name: str):
    path = resource("recipes") / f"{name}.yaml"
    assert f"visionpeft run recipes/{name}.yaml" in header(path)


@pytest.mark.parametrize("name", [*filter(adapts_a_trained_source, NAMES)])
def test_the_source_model_of_a_recipe_is_one_we_can_train(name: str):
    section = load_recipe(name).backbone
    source = load_recipe(f"pretrain/{str(section.pretrained).removeprefix('run:')}")
    assert source.publish
    if section.name.endswith("Pipeline"):  # the folder of a pipeline says what it is
        assert section.name == f"diffusers/{SMALL[source.backbone.name.removeprefix('diffusers/')]}"
        assert section.image_size == source.backbone.image_size
        return
    shapes = []
    for recipe in (load_recipe(name), source):
        options = {"image_size": recipe.backbone.image_size, **recipe.backbone.options}
        if not recipe.backbone.name.startswith("open_clip/"):  # a CLIP has no classifier
            options["num_classes"] = 10
        model = load(recipe.backbone.name, pretrained=False, device="meta", **options).model
        shapes.append({key: tuple(value.shape) for key, value in model.state_dict().items()})
    assert shapes[0] == shapes[1]


def test_the_quickstart_compares_like_with_like():
    """Head-only has the same data, augmentation and steps; only its learning rate is its own, and tuned."""
    recipe = load_recipe("classify/quickstart")
    control = next(item for item in recipe.compare if item.method and item.method.name == "head_only")
    assert control.data is None and control.task is None and control.trainer is None
    assert control.tune is not None and len(control.tune.lr) >= 3
    assert len(recipe.seeds) >= 3
