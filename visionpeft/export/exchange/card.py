"""The model card beside an exported adapter: ``README.md`` with its metadata, how to load it, and sample pictures."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from visionpeft.errors import DataError, OptionError
from visionpeft.files import atomic_write

CARD, SAMPLES = "README.md", "samples"
_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")

_USE = {
    "pipeline": "pipe = DiffusionPipeline.from_pretrained({folder!r})",
    "diffusers-lora": "pipe.load_lora_weights({folder!r}, weight_name={file!r})",
    "kohya": "pipe.load_lora_weights({folder!r}, weight_name={file!r})",
    "peft": "from peft import PeftModel\n\nPeftModel.from_pretrained(pipe.{component}, {folder!r})",
    "lycoris": (
        "from lycoris import create_lycoris_from_weights\n\n"
        "network, _ = create_lycoris_from_weights(1.0, {path!r}, pipe.{component})\nnetwork.apply_to()"
    ),
    "visionpeft": "import visionpeft as vp\n\nvp.load(pipe.{component}, {folder!r})",
}
"""Format → how it is loaded."""


@dataclass(frozen=True)
class Sample:
    """A picture that the adapted pipeline drew: the file, and the prompt it was drawn from."""

    picture: Path
    prompt: str = ""


def model_card(
    folder: str | Path,
    form: str,
    *,
    title: str,
    says: Mapping[str, Any],
    component: str = "unet",
    file: str | None = None,
    samples: Sequence[Sample] = (),
    figures: Mapping[str, str] | None = None,
    text: str = "",
) -> Path:
    """Write ``README.md`` into the folder of an exported adapter, and copies of the sample pictures beside it.

    Args:
        folder: where the adapter or its file lies.
        form: its format, or ``pipeline`` for a merged one.
        title: the heading.
        says: what the adapter's file says of itself (:func:`visionpeft.surgery.about.written_about`): ``method``,
            ``options``, ``base``, ``base_licence``, ``recipe``, ``error`` are shown.
        component: place of the denoiser in the pipeline.
        file: name of the file in the folder; default: the only one that ends in ``.safetensors``.
        samples: pictures to show, with their prompts.
        figures: what was measured: name → value as text.
        text: a paragraph under the heading.

    Returns:
        The path of the card.

    Raises:
        OptionError: an unknown format, or no single weights file where one must be named.
        DataError: a sample is missing or no picture.
    """
    folder = Path(folder)
    use = _use(form, folder, component, file)
    pictures = _copied(samples, folder / SAMPLES)
    parts = [_front(form, says), f"# {title}", text, _facts(says), _figures(figures or {}), use, _gallery(pictures)]
    return atomic_write(folder / CARD, "\n\n".join(part for part in parts if part) + "\n")


def _front(form: str, says: Mapping[str, Any]) -> str:
    """The block that the hub reads."""
    tags = ["visionpeft", *(["lora"] if form in ("diffusers-lora", "kohya", "peft") else [])]
    found: dict[str, Any] = {"library_name": "peft" if form == "peft" else "diffusers", "tags": tags}
    if says.get("base_licence"):
        found["license"] = str(says["base_licence"])
    if says.get("base"):
        found["base_model"] = str(says["base"])
    return f"---\n{yaml.safe_dump(found, sort_keys=False, allow_unicode=True)}---"


def _facts(says: Mapping[str, Any]) -> str:
    options = ", ".join(f"{key}={value}" for key, value in (says.get("options") or {}).items())
    error = says.get("error")
    rows = {
        "method": f"`{says['method']}` ({options})" if says.get("method") else None,
        "base": says.get("base"),
        "fingerprint of the base": says.get("base_fingerprint"),
        "licence of the base": says.get("base_licence") or "not stated: look it up before you share this",
        "recipe": says.get("recipe"),
        "relative error of this file": None if error is None else f"{error:.1e}",
        "made with": f"visionpeft {says['version']}" if says.get("version") else None,
    }
    return _table({key: str(value) for key, value in rows.items() if value})


def _figures(figures: Mapping[str, str]) -> str:
    return f"## What was measured\n\n{_table(figures)}" if figures else ""


def _table(rows: Mapping[str, str]) -> str:
    cells = (f"| {_cell(key)} | {_cell(value)} |" for key, value in rows.items())
    return "\n".join(["| | |", "| --- | --- |", *cells])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _use(form: str, folder: Path, component: str, file: str | None) -> str:
    if form not in _USE:
        raise OptionError(f"model_card: format {form!r}, but it must be one of {', '.join(_USE)}")
    if "{file" in _USE[form] or "{path" in _USE[form]:
        files = [file] if file else sorted(path.name for path in folder.glob("*.safetensors"))
        if len(files) != 1:
            raise OptionError(f"model_card: {folder} holds {len(files)} weights files: name one with file=")
        file = files[0]
    name = folder.name or "."
    code = _USE[form].format(folder=name, file=file, path=f"{name}/{file}", component=component)
    start = "" if form == "pipeline" else 'pipe = DiffusionPipeline.from_pretrained("the base")\n'
    return f"## How to load it\n\n```python\nfrom diffusers import DiffusionPipeline\n\n{start}{code}\n```"


def _copied(samples: Sequence[Sample], folder: Path) -> list[tuple[str, str]]:
    """(name, prompt) of the pictures, copied as ``01.png`` and on."""
    for sample in samples:
        if sample.picture.suffix.lower() not in _ENDINGS or not sample.picture.is_file():
            raise DataError(f"model_card: {sample.picture} is no picture file ({', '.join(_ENDINGS)})")
    found = []
    for number, sample in enumerate(samples, start=1):
        name = f"{number:02d}{sample.picture.suffix.lower()}"
        source = sample.picture
        atomic_write(folder / name, lambda temporary, source=source: shutil.copyfile(source, temporary))
        found.append((name, sample.prompt))
    return found


def _gallery(pictures: Sequence[tuple[str, str]]) -> str:
    lines = [f"![{_alt(prompt)}]({SAMPLES}/{name}) {_cell(prompt)}".rstrip() for name, prompt in pictures]
    return "## Samples\n\n" + "\n\n".join(lines) if lines else ""


def _alt(prompt: str) -> str:
    return _cell(prompt).replace("[", "(").replace("]", ")")
