"""Opening a foreign file or folder: which format it is, its tensors, its configuration. Nothing is unpickled."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from visionpeft.errors import AdapterFileError
from visionpeft.export.exchange.layers import Layer, grouped
from visionpeft.export.exchange.place import PEFT_CONFIG, PEFT_WEIGHTS

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
PREFIXES = ("base_model.model.", "unet.", "transformer.", "lora_unet_", "lora_transformer_", "lycoris_")
OTHERS = ("text_encoder", "lora_te")
_DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"


@dataclass(frozen=True, eq=False)
class Foreign:
    """A file of another tool, read but not yet related to a network.

    Attributes:
        path: the file.
        form: ``diffusers-lora``, ``peft``, ``kohya`` or ``lycoris``.
        layers: those of the denoiser, in the order of the file.
        elsewhere: names of layers that belong to another component of the pipeline.
        strange: keys that belong to no layer.
        config: peft's configuration, as far as there is one: rank and alpha patterns and the like.
        metadata: the header of the file.
    """

    path: Path
    form: str
    layers: tuple[Layer, ...]
    elsewhere: tuple[str, ...]
    strange: tuple[str, ...]
    config: dict[str, Any]
    metadata: dict[str, str]

    def scale(self, layer: Layer) -> float:
        """What the product of a layer's factors is multiplied by: alpha over rank (over its root with rsLoRA)."""
        path, rank, alpha = bare(layer.name), layer.rank, layer.alpha
        if rank is None and self.form == "peft":  # scales whole factors too, by the rank that was asked for
            rank = _by_pattern(self.config, "rank_pattern", path, self.config["r"])
        if rank is None:  # whole factors, which LyCORIS does not scale
            return 1.0
        if alpha is None:
            alpha = _by_pattern(self.config, "alpha_pattern", path, self._default_alpha)
        if not alpha:  # none, or LyCORIS' zero
            return 1.0
        return alpha / (rank**0.5 if self.config.get("use_rslora") else rank)

    @property
    def _default_alpha(self) -> float | None:
        return self.config.get("lora_alpha", self.config.get("alpha"))


def bare(name: str) -> str:
    """The name of a layer without what stands for the network: ``unet.mid_block.conv`` → ``mid_block.conv``."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix).replace(".processor.", ".")
    return name.replace(".processor.", ".")


def open_foreign(path: str | Path) -> Foreign:
    """Read a file, or a folder that holds one.

    Raises:
        AdapterFileError: there is none, it is a pickle, truncated, of a method of peft that is not known, or holds no
            adapter.
    """
    file = _file_of(Path(path))
    tensors, metadata = read_file(file)
    config = _config_beside(file) if any(key.startswith("base_model.model.") for key in tensors) else {}
    config = config or _config_in(metadata)
    layers, strange = grouped(tensors)
    own = tuple(layer for layer in layers if not layer.name.startswith(OTHERS))
    elsewhere = tuple(layer.name for layer in layers if layer.name.startswith(OTHERS))
    if not layers:
        shown = ", ".join(list(tensors)[:3]) or "none"
        raise AdapterFileError(f"{file} holds no adapter of a known format; its keys: {shown}, …")
    return Foreign(file, _form(own or layers), own, elsewhere, tuple(strange), config, metadata)


def read_file(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file.

    Raises:
        AdapterFileError: it is a pickle, truncated, or no safetensors file.
    """
    if file.suffix in PICKLES:
        raise AdapterFileError(
            f"{file} is a pickle, which can run foreign code when it is read, so it is not. Convert it once where you "
            f'trust it: python -c "import torch; from safetensors.torch import save_file; '
            f"save_file(torch.load('{file}', weights_only=True), '{file.with_suffix('.safetensors')}')\""
        )
    try:
        with safe_open(file, "pt") as content:
            return {key: content.get_tensor(key) for key in content.keys()}, dict(content.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise AdapterFileError(f"{file} is truncated or no safetensors file: {error}") from error


def _file_of(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise AdapterFileError(f"there is no adapter file or folder {path}")
    for name in (PEFT_WEIGHTS, _DIFFUSERS_FILE):
        if (path / name).is_file():
            return path / name
    files = sorted(path.glob("*.safetensors")) or sorted(p for p in path.iterdir() if p.suffix in PICKLES)
    if len(files) != 1:
        raise AdapterFileError(f"{path} holds {len(files)} weights files: name the one that is meant")
    return files[0]


def _config_beside(file: Path) -> dict[str, Any]:
    """``adapter_config.json`` of a peft folder; the file alone does not say alpha."""
    config = file.with_name(PEFT_CONFIG)
    if not config.is_file():
        raise AdapterFileError(f"{config} is missing: without it the alpha of a peft adapter is unknown")
    try:
        found = json.loads(config.read_text())
    except (OSError, ValueError) as error:
        raise AdapterFileError(f"{config} cannot be read as JSON: {error}") from error
    kind = found.get("peft_type") if isinstance(found, dict) else None
    if kind not in ("LORA", "LOHA", "LOKR"):
        raise AdapterFileError(f"{config}: peft_type is {kind!r}; LORA, LOHA and LOKR can be read")
    return found


def _config_in(metadata: dict[str, str]) -> dict[str, Any]:
    """The configuration that diffusers writes into the header, without the prefix of the component."""
    try:
        found = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return {}
    found = found if isinstance(found, dict) else {}
    return {key.removeprefix("unet.").removeprefix("transformer."): value for key, value in found.items()}


def _form(layers: Sequence[Layer]) -> str:
    names = [layer.name for layer in layers]
    if any(name.startswith("base_model.model.") for name in names):
        return "peft"
    flat = all(name.startswith(("lora_", "lycoris_")) for name in names)
    if any(name.startswith("lycoris_") for name in names) or any(layer.kind != "LoRA" for layer in layers):
        return "lycoris"
    return "kohya" if flat else "diffusers-lora"


def _by_pattern(config: dict[str, Any], key: str, path: str, default: Any) -> Any:
    """The entry whose expression matches the end of a path, as peft looks it up."""
    for expression, value in (config.get(key) or {}).items():
        if re.match(rf"(.*\.)?({expression})$", path):
            return value
    return default
