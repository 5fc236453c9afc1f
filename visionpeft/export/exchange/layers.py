"""The layers of a foreign file: its tensors grouped by the layer they belong to, under one set of roles."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

ROLES = {
    **dict.fromkeys(("lora_A.weight", "lora_down.weight", "lora.down.weight", "lora_embedding_A"), "down"),
    **dict.fromkeys(("lora_B.weight", "lora_up.weight", "lora.up.weight", "lora_embedding_B"), "up"),
    **dict.fromkeys(("lora_linear_layer.down.weight",), "down"),
    **dict.fromkeys(("lora_linear_layer.up.weight",), "up"),
    **dict.fromkeys(("lora_magnitude_vector", "lora_magnitude_vector.weight"), "magnitude"),
    **dict.fromkeys(("lora_B.bias", "lora_up.bias", "diff_b"), "bias"),
    **{f"hada_{part}": f"hada_{part}" for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")},
    **{f"lokr_{part}": f"lokr_{part}" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")},
    "lora_mid.weight": "mid",
    "alpha": "alpha",
    "dora_scale": "dora_scale",
    "diff": "diff",
    **dict.fromkeys(("w_norm", "b_norm"), "norm"),
    **dict.fromkeys(("oft_blocks", "oft_diag", "rescale"), "oft"),
    **dict.fromkeys(("on_input",), "ia3"),
    **{f"{part}.weight": "glora" for part in ("a1", "a2", "b1", "b2", "bm")},
}
"""Ending of a key → what the tensor is, whichever tool wrote it."""

KINDS = {
    "LoRA": {"down", "up"},
    "LoHa": {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
    "LoKr": {"lokr_w1", "lokr_w1_a"},
    "full difference": {"diff"},
    "norm difference": {"norm"},
    "OFT or BOFT": {"oft"},
    "IA³": {"ia3"},
    "GLoRA": {"glora"},
}
"""Kind of a layer → roles that tell it (of LoKr either)."""

UNSAYABLE = {
    "norm difference": "changes a normalisation layer, which has no matrix to adapt",
    "OFT or BOFT": "rotates the weight instead of adding to it",
    "IA³": "rescales activations instead of adding to the weight",
    "GLoRA": "multiplies the weight as well as adding to it",
    "unknown": "its tensors belong to no method known here",
}
"""Kinds that are no change by addition, and why."""

_OLD_ATTENTION = re.compile(r"_lora\.(down|up)\.weight$")
_ADAPTER_NAME = re.compile(r"\.(lora_(?:A|B))\.[A-Za-z]\w*\.weight$")


@dataclass(frozen=True, eq=False)
class Layer:
    """The tensors of one layer.

    Args:
        name: of the layer, as in the file but for the ending.
        tensors: role → tensor.
    """

    name: str
    tensors: dict[str, Tensor]

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`, or ``unknown``."""
        there = self.tensors.keys()
        for kind, roles in KINDS.items():
            if roles <= there or (kind == "LoKr" and roles & there):
                return kind
        return "unknown"

    @property
    def rank(self) -> int | None:
        """Of LoRA, LoHa and LoKr; None where factors are whole."""
        t = self.tensors
        if self.kind == "LoRA":
            return t["down"].shape[0]
        if self.kind == "LoHa":
            return t["hada_w1_b"].shape[0]
        for core, factor in (("lokr_t2", None), (None, "lokr_w1_a"), (None, "lokr_w2_a")):
            if core in t:
                return t[core].shape[0]
            if factor in t:
                return t[factor].shape[1]
        return None

    @property
    def alpha(self) -> float | None:
        """As the file gives it beside the layer."""
        return self.tensors["alpha"].item() if "alpha" in self.tensors else None

    @property
    def changes_bias(self) -> bool:
        """Whether there is a change of the bias beside that of the weight; LyCORIS also writes ones of zero."""
        return "bias" in self.tensors and bool(self.tensors["bias"].any())

    @property
    def gained(self) -> bool:
        """Whether a DoRA magnitude belongs to it."""
        return bool({"magnitude", "dora_scale"} & self.tensors.keys())


def grouped(tensors: Mapping[str, Tensor]) -> tuple[list[Layer], list[str]]:
    """The layers of a file in its order, and the keys that belong to none."""
    layers: dict[str, dict[str, Tensor]] = {}
    strange = []
    for key, tensor in tensors.items():
        name, role = _split(key)
        if role is None:
            strange.append(key)
        else:
            layers.setdefault(name, {})[role] = tensor
    return [Layer(name, parts) for name, parts in layers.items()], strange


def _split(key: str) -> tuple[str, str | None]:
    """Name of the layer and role; older spellings of diffusers and peft included."""
    key = _ADAPTER_NAME.sub(r".\1.weight", key)
    if key.endswith(".alpha"):  # diffusers' converter hangs it on the key of a factor
        key = _OLD_ATTENTION.sub("", key.removesuffix(".alpha")) + ".alpha"
    if old := _OLD_ATTENTION.search(key):
        return key[: old.start()], old[1]
    for parts in (3, 2, 1):
        pieces = key.rsplit(".", parts)
        ending = ".".join(pieces[1:])
        if len(pieces) == parts + 1 and ending in ROLES:
            return pieces[0], ROLES[ending]
    return key, None
