"""The network that an adapter is for: a pipeline, or a denoiser saved alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from visionpeft.errors import AdapterFileError, OptionError


@dataclass(frozen=True, eq=False)
class Base:
    """A plain denoiser, its place in the pipeline, and what is known of where it comes from."""

    denoiser: nn.Module
    component: str
    says: dict[str, str]


def open_base(source: str, component: str | None = None) -> Base:
    """Open the base of an adapter.

    Args:
        source: a pipeline (a folder, ``run:NAME``, a repository of the hub), or the folder of a denoiser that
            ``save_pretrained`` wrote.
        component: ``unet`` or ``transformer``; default: as the pipeline has it, or by the denoiser's class.

    Raises:
        UserError: there is none, or it is not whole.
    """
    if component not in (None, "unet", "transformer"):
        raise OptionError(f"component = {component!r}, but it must be unet or transformer")
    folder = Path(source).expanduser()
    says = {"base": source} | licence_of(folder)
    if (folder / "config.json").is_file() and not (folder / "model_index.json").is_file():
        denoiser = _denoiser(folder)
        return Base(denoiser, component or component_of(denoiser), says)
    from visionpeft.backbones.pipelines import open_pipeline

    opened = open_pipeline(source)
    return Base(opened.denoiser, component or opened.family.component, says)


def component_of(denoiser: nn.Module) -> str:
    """Where a denoiser stands in its pipelines, by its class."""
    return "unet" if type(denoiser).__name__.startswith("UNet") else "transformer"


def licence_of(folder: Path) -> dict[str, str]:
    """``base_licence`` as the model card in a folder names it, where there is one."""
    from visionpeft.recipe.yaml import parse

    card = folder / "README.md"
    if not card.is_file():
        return {}
    _, _, rest = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
    front, mark, _ = rest.partition("\n---")
    lines = [line for line in front.splitlines() if line.startswith("license:")]
    if not mark or not lines:
        return {}
    found = parse(lines[0].removeprefix("license:").strip(), str(card))
    return {"base_licence": str(found)} if found else {}


def _denoiser(folder: Path) -> nn.Module:
    """A network of diffusers by the class that its configuration names."""
    import json

    import diffusers
    from safetensors import SafetensorError

    try:
        name = json.loads((folder / "config.json").read_text()).get("_class_name")
        kind: Any = getattr(diffusers, str(name), None)
        if not (isinstance(kind, type) and issubclass(kind, diffusers.ModelMixin)):
            raise AdapterFileError(f"{folder / 'config.json'}: _class_name is {name!r}, no network of diffusers")
        return kind.from_pretrained(folder, use_safetensors=True).eval()
    except (OSError, ValueError, RuntimeError, AttributeError, SafetensorError) as error:
        raise AdapterFileError(f"{folder} holds no whole network of diffusers: {error}") from error
