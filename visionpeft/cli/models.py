"""Commands about networks and adapters: ``show``, ``export``, ``merge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from visionpeft.cli.app import app, example

Texts = list[str] | None
NetworkOption = Annotated[
    Texts, typer.Option("--backbone-option", metavar="KEY=VALUE", help="Of the network's constructor; repeatable.")
]
ImageSize = Annotated[int | None, typer.Option(help="Pixels a side, where the network depends on it.")]


@app.command(epilog=example("visionpeft show --backbone timm/resnet18 --method cp_lora -O rank=4 --targets conv.3x3"))
def show(
    backbone: Annotated[str, typer.Option(help="family/model, for instance timm/vit_tiny_patch16_224.")],
    method: Annotated[str, typer.Option(help="A name from `visionpeft methods`.")] = "lora",
    targets: Annotated[Texts, typer.Option("--targets", "-t", help="Paths, roles, globs; default: all.")] = None,
    option: Annotated[Texts, typer.Option("--option", "-O", metavar="KEY=VALUE", help="Of the method.")] = None,
    backbone_option: NetworkOption = None,
    image_size: ImageSize = None,
) -> None:
    """Print every weight of a network: its site, the path chosen and why, parameters, and what cannot be adapted.

    Nothing is downloaded and no weight is allocated: only shapes are looked at.
    """
    from visionpeft.cli.printing import print_coverage
    from visionpeft.runs.coverage import coverage

    found = coverage(
        backbone, method, _pairs(option), targets or ["*"], image_size=image_size, **_pairs(backbone_option)
    )
    print_coverage(found)


@app.command(
    epilog=example("visionpeft export runs/quickstart --to program", "… runs/ink --to diffusers-lora --rank 8")
)
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            "--to",
            "-f",
            help="merged, program, onnx, bundle (MONAI), open-clip, pipeline (diffusers); the adapter alone as "
            "diffusers-lora, peft, kohya, lycoris.",
        ),
    ] = "merged",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: inside the run folder.")] = None,
    fold: Annotated[int | None, typer.Option(min=1, help="Of a cross-validation; default: the first.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Adapter alone: components a layer at most.")] = None,
    energy: Annotated[float | None, typer.Option(help="Or: a share of the squared singular values, 0 to 1.")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="Adapter alone: leave out what the format cannot say.")] = False,
    licence: Annotated[str | None, typer.Option(help="Adapter alone: of the base, for the model card.")] = None,
) -> None:
    """Write what a run trained as a file that needs no visionpeft, and compare it with the adapted model.

    They are compared on training images, or on noise where the data set is out of reach.
    """
    from visionpeft.export import export_run

    adapter = {"rank": rank, "energy": energy, "drop": drop, "licence": licence}
    path, parity = export_run(folder, form, output, None if fold is None else fold - 1, **adapter)
    print(f"parity: {parity}\n{path}")


@app.command(epilog=example("visionpeft merge runs/r18/adapter --backbone timm/resnet18 --output merged.safetensors"))
def merge(
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="An adapter folder.")],
    backbone: Annotated[str, typer.Option(help="The network it was made on, family/model.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")],
    pretrained: Annotated[str, typer.Option(help="true, package, run:NAME or a weights file.")] = "true",
    classes: Annotated[int | None, typer.Option(help="Outputs of the classifier; default: as saved.")] = None,
    image_size: ImageSize = None,
    backbone_option: NetworkOption = None,
) -> None:
    """Fold an adapter folder into the weights of its network, under the network's own key names."""
    from visionpeft.export.adapters import merge_adapter
    from visionpeft.recipe.yaml import parse

    weights = parse(pretrained, "--pretrained")
    options = _pairs(backbone_option)
    parity = merge_adapter(adapter, output, backbone, weights, classes=classes, image_size=image_size, **options)
    print(f"parity: {parity}\n{output}")


def _pairs(texts: Texts) -> dict[str, Any]:
    """``["rank=4"]`` → ``{"rank": 4}``; values are read as YAML, as in a recipe."""
    from visionpeft.recipe.overrides import apply_overrides

    return apply_overrides({}, texts or [])
