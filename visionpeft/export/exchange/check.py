"""``formats check``: what a file is, which tools load it, and what they would leave out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from visionpeft.export.exchange.base import component_of
from visionpeft.export.exchange.kinds import refusal
from visionpeft.export.exchange.limits import FORMS
from visionpeft.export.exchange.resolve import resolve
from visionpeft.export.exchange.source import Foreign, open_foreign
from visionpeft.surgery.about import written_about
from visionpeft.surgery.folder import ADAPTER, META, read_meta, read_tensors


@dataclass(frozen=True)
class Checked:
    """What is known of an adapter file.

    Attributes:
        path: the file.
        form: its format; ``visionpeft`` for a folder of ours.
        holds: what is in it, in words: layers by kind, ranks, alphas, precision, size.
        tools: tool → whether it loads the file, and what it would leave out.
        dropped: what an adapter of ours cannot say: name → reason.
        says: what the file tells of itself.
    """

    path: Path
    form: str
    holds: dict[str, str]
    tools: dict[str, str]
    dropped: dict[str, str]
    says: dict[str, Any]


def check(path: str | Path, model: nn.Module | None = None, component: str | None = None) -> Checked:
    """Look through an adapter file or folder.

    Args:
        model: the plain denoiser it is meant for: then names and shapes are compared as well.
        component: place of the denoiser in its pipeline; default: by its class.

    Raises:
        AdapterFileError: a pickle, a damaged or unknown file, or (with ``model``) one for another architecture.
    """
    if (Path(path) / META).is_file():
        return _ours(Path(path))
    foreign = open_foreign(path)
    if model is None:
        dropped = {layer.name: reason for layer in foreign.layers if (reason := refusal(layer)) is not None}
        biases = [f"{layer.name} (bias)" for layer in foreign.layers if layer.changes_bias]
        dropped |= dict.fromkeys(biases, "changes the bias; adapters here change weights")
        dropped |= dict.fromkeys(foreign.elsewhere, "belongs to a text encoder, not to the denoiser")
        dropped |= dict.fromkeys(foreign.strange, "belongs to no layer of a known kind")
    else:
        dropped = resolve(foreign, model, component or component_of(model)).dropped
    tools = {tool: verdict(foreign) for tool, verdict in _TOOLS.items()}
    left = f", leaving out {len(dropped)} entries (--drop)" if dropped else ", whole"
    readable = len(foreign.layers) > len([layer for layer in foreign.layers if refusal(layer)])
    tools["visionpeft convert"] = f"reads it{left}" if readable else "reads nothing of it"
    return Checked(foreign.path, foreign.form, _holds(foreign), tools, dropped, written_about(foreign.metadata))


def _ours(folder: Path) -> Checked:
    meta = read_meta(folder)
    tensors = read_tensors(folder, meta, ADAPTER)
    holds = {
        "is": "an adapter folder of visionpeft",
        "method": meta["method"],
        "options": ", ".join(f"{key}={value}" for key, value in meta["options"].items()),
        "targets": f"{len(meta['targets'])} weights",
        "values": f"{sum(t.numel() for t in tensors.values()):,}",
    }
    others = "no; `visionpeft convert` writes what it loads"
    tools = {"vp.load": "loads it, onto the base it was made on", **dict.fromkeys(_TOOLS, others)}
    from safetensors import safe_open

    with safe_open(folder / ADAPTER, "pt") as content:
        return Checked(folder, "visionpeft", holds, tools, {}, written_about(content.metadata()))


def _holds(foreign: Foreign) -> dict[str, str]:
    layers = foreign.layers
    tensors = [t for layer in layers for t in layer.tensors.values()]
    kinds = Counter(layer.kind + (" with DoRA" if layer.gained else "") for layer in layers)
    dtypes = Counter(str(t.dtype).removeprefix("torch.") for t in tensors if t.dim())
    found = {
        "is": FORMS[foreign.form],
        "layers": ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()),
        "rank": _counted(layer.rank for layer in layers if layer.rank is not None),
        "scale": _counted(round(foreign.scale(layer), 4) for layer in layers),
        "values": f"{sum(t.numel() for t in tensors):,} in {', '.join(dtypes)}, {foreign.path.stat().st_size:,} bytes",
    }
    return {key: text for key, text in found.items() if text}


def _counted(values: Any) -> str:
    counts = Counter(values)
    shown = ", ".join(
        f"{value} ({count}×)" if len(counts) > 1 else f"{value}" for value, count in counts.most_common(6)
    )
    return shown + (", …" if len(counts) > 6 else "")


def _by_diffusers(foreign: Foreign) -> str:
    """As ``load_lora_weights`` of 0.42 behaves."""
    if foreign.form == "peft":
        return "no: it takes files of LoRA, not peft's folders"
    if any(layer.kind != "LoRA" for layer in foreign.layers):
        return "no: it refuses a file that holds anything but LoRA"
    if foreign.form == "lycoris":
        return "no: it does not know the names"
    if any("dora_scale" in layer.tensors for layer in foreign.layers):
        return "loads it without DoRA's magnitudes, which is another function"
    alphas = {foreign.scale(layer) * (layer.rank or 1) for layer in foreign.layers}
    if foreign.form == "kohya" and len(alphas) > 1:
        return f"loads it, with one alpha for all attention layers, where the file has {len(alphas)}"
    return "load_lora_weights loads it"


def _by_peft(foreign: Foreign) -> str:
    if foreign.form != "peft":
        return "no: it takes a folder with adapter_config.json"
    return "PeftModel.from_pretrained loads the folder"


def _by_lycoris(foreign: Foreign) -> str:
    if foreign.form == "peft" or any("." in layer.name for layer in foreign.layers):
        return "no: it looks for flat names, lycoris_…"
    if any(layer.name.startswith("lora_") for layer in foreign.layers):
        return "its kohya loader loads it (lora_unet_…); create_lycoris_from_weights looks for lycoris_…"
    return "create_lycoris_from_weights loads it"


def _by_web_uis(foreign: Foreign) -> str:
    if foreign.form in ("peft",):
        return "no: they take files, not peft's folders"
    return "by its format, yes (not tried here)"


_TOOLS = {
    "diffusers": _by_diffusers,
    "peft": _by_peft,
    "lycoris-lora": _by_lycoris,
    "ComfyUI, kohya's scripts": _by_web_uis,
}
