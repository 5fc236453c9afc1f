"""How others adapt: HF PEFT, LyCORIS, and the attention of CLIP-LoRA."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from visionpeft.bench.clip_lora import replace_attention
from visionpeft.surgery.adapt import adapt
from visionpeft.surgery.folder import save
from visionpeft.surgery.merge import merge

FILE = "adapter.safetensors"
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Prepared = tuple[nn.Module, Callable[[], object] | None, Callable[[Path], object] | None]


@dataclass(frozen=True)
class Package:
    """Another way to adapt, if the package that it needs is installed."""

    name: str
    prepare: Callable[[nn.Module, int], Prepared]

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.name) is not None


def _peft(kinds: tuple[type[nn.Module], ...], model: nn.Module, rank: int) -> Prepared:
    import peft

    targets = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    wrapped = peft.PeftModel(model, peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))  # pyright: ignore
    return wrapped, wrapped.merge_adapter, lambda folder: wrapped.save_pretrained(str(folder))


def _diffusers(model: nn.Module, rank: int) -> Prepared:
    """HF PEFT as diffusers' own training scripts use it, which is what its pipelines load."""
    import peft

    unet: Any = model.unet
    targets = [name for name, module in unet.named_modules() if isinstance(module, LAYERS)]
    model.requires_grad_(False)
    unet.add_adapter(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))
    return model, unet.fuse_lora, lambda folder: unet.save_lora_adapter(str(folder))


def _lycoris(model: nn.Module, rank: int) -> Prepared:
    import logging

    from lycoris import LycorisNetwork, create_lycoris

    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    model.requires_grad_(False)
    LycorisNetwork.apply_preset({"target_module": ["Linear", "Conv1d", "Conv2d", "Conv3d"], "enable_conv": True})
    network = create_lycoris(model, 1.0, rank, rank, conv_dim=rank, conv_alpha=rank, algo="lora")
    network.apply_to()
    model.add_module("lycoris", network)
    return model, network.merge_to, lambda folder: network.save_weights(str(folder / FILE), torch.float32, {})


def _clip_lora(dropout: float, model: nn.Module, rank: int) -> Prepared:
    replace_attention(model.requires_grad_(False), rank, dropout)
    return model, None, None


def _with_dropout(model: nn.Module, rank: int) -> Prepared:
    adapt(model, "lora", targets=["attn.qkv[q,k,v]"], rank=rank, dropout=0.25)
    return model, lambda: merge(model), lambda folder: save(model, folder)


PACKAGES = {
    "HF PEFT lora": Package("peft", partial(_peft, LAYERS)),
    "HF PEFT lora in diffusers": Package("peft", _diffusers),
    "LyCORIS locon": Package("lycoris", _lycoris),
    "lora, dropout .25": Package("visionpeft", _with_dropout),
    "CLIP-LoRA": Package("visionpeft", partial(_clip_lora, 0.0)),
    "CLIP-LoRA, dropout .25": Package("visionpeft", partial(_clip_lora, 0.25)),
    "HF PEFT lora on attention": Package("peft", partial(_peft, (nn.MultiheadAttention,))),
}
"""By label; which of them take part is said by the network."""
