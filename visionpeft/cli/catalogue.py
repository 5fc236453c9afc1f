"""Commands that list what there is: ``methods``, ``recipes``, ``datasets``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from visionpeft.cli.app import app, example

recipes = typer.Typer(help="Recipes that come with visionpeft.", rich_markup_mode=None, no_args_is_help=True)
datasets = typer.Typer(help="Data sets that have a card.", rich_markup_mode=None, no_args_is_help=True)
app.add_typer(recipes, name="recipes", epilog=example("visionpeft recipes show classify/quickstart"))
app.add_typer(datasets, name="datasets", epilog=example("visionpeft datasets fetch mnist"))


@app.command(epilog=example("visionpeft methods", "visionpeft methods cp_lora"))
def methods(name: Annotated[str | None, typer.Argument(help="One method, with its documentation.")] = None) -> None:
    """List the adapter methods with their options, or explain one."""
    from visionpeft.cli.printing import print_method, print_methods
    from visionpeft.methods import find
    from visionpeft.methods import methods as registered

    print_methods(registered()) if name is None else print_method(name, find(name))


@recipes.command("list", epilog=example("visionpeft recipes list"))
def list_recipes() -> None:
    """List the recipes with the first line of their header."""
    from visionpeft.cli.printing import print_pairs
    from visionpeft.recipe import shipped_recipes

    print_pairs({name: _headline(path) for name, path in shipped_recipes().items()})


@recipes.command("show", epilog=example("visionpeft recipes show classify/quickstart --resolved"))
def show_recipe(
    source: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file or name.")],
    resolved: Annotated[bool, typer.Option("--resolved", help="With every default written out, checked.")] = False,
    changes: Annotated[
        list[str] | None, typer.Option("--set", "-s", metavar="KEY=VALUE", help="Change a key (with --resolved).")
    ] = None,
) -> None:
    """Print a recipe as it is written, or as it will run."""
    from visionpeft.recipe import check_methods, find_recipe, load_recipe
    from visionpeft.runs.folder import resolved_text

    if not (resolved or changes):
        print(find_recipe(source).read_text(encoding="utf-8"), end="")
        return
    recipe = load_recipe(source, changes or [])
    check_methods(recipe)
    print(resolved_text(recipe), end="")


@recipes.command("schema", epilog=example("visionpeft recipes schema --output recipes/schema.json"))
def schema(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it to a file instead.")] = None,
) -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from visionpeft.files import atomic_write
    from visionpeft.recipe import recipe_schema

    text = json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n"
    print(text, end="") if output is None else print(atomic_write(output, text))


@datasets.command("list", epilog=example("visionpeft datasets list"))
def list_datasets() -> None:
    """List the data sets."""
    from visionpeft.cli.printing import print_pairs
    from visionpeft.data.cards import cards, load_card

    print_pairs({name: load_card(name).title for name in cards()})


@datasets.command("show", epilog=example("visionpeft datasets show mnist"))
def show_dataset(name: Annotated[str, typer.Argument(help="A name, or the path of a card.")]) -> None:
    """Print a card: source, licence and attribution, classes and the words for them, splits."""
    from visionpeft.data.cards import Card, load_card
    from visionpeft.recipe.yaml import dump

    card = load_card(name)
    content = card.model_dump(mode="json", exclude_defaults=True)
    if isinstance(card, Card):
        words = {label: card.prompts.words(label) for label in card.classes or card.prompts.names}
        content["prompts"] = {"templates": list(card.prompts.templates), "names": words}
    print(dump(content), end="")


@datasets.command("check", epilog=example("visionpeft datasets check mnist", "visionpeft datasets check my-folder"))
def check_dataset(
    name: Annotated[str, typer.Argument(help="A name, the path of a card, or a folder of images.")],
    sheet: Annotated[
        Path | None, typer.Option("--sheet", metavar="PNG", help="Also draw cases with their masks, or pictures.")
    ] = None,
) -> None:
    """Open a data set, verify checksums and the pinned split, count, and read every image, or case with its mask.

    Exit code 2 says that something is broken.
    """
    from visionpeft.data.captions.cards import CaptionsCard
    from visionpeft.data.cards import Card, load_card
    from visionpeft.data.pictures.cards import PicturesCard

    card = load_card(name)
    if isinstance(card, Card):
        from visionpeft.cli.images import check_images

        check_images(card)
    elif isinstance(card, CaptionsCard):
        from visionpeft.cli.printing import print_pairs
        from visionpeft.data.captions.open import open_pairs

        print_pairs({reason: f"{count:,}" for reason, count in open_pairs(card).counts.items()})
    elif isinstance(card, PicturesCard):
        from visionpeft.cli.pictures import check_and_print

        check_and_print(card, sheet)
    else:
        from visionpeft.cli.cases import check_cases

        check_cases(card, sheet)


@datasets.command("fetch", epilog=example("visionpeft datasets fetch fashion-mnist"))
def fetch_dataset(name: Annotated[str, typer.Argument(help="A name, or the path of a card.")]) -> None:
    """Bring a data set's files into the cache and print where they lie."""
    from visionpeft.data.captions.cards import CaptionsCard
    from visionpeft.data.cards import load_card
    from visionpeft.data.fetch import stage
    from visionpeft.data.pictures.cards import PicturesCard

    card = load_card(name)
    for files in card.parts if isinstance(card, CaptionsCard | PicturesCard) else (card,):
        print(stage(files))


def _headline(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""
