"""From changes to the tensors of a file, under the names and with the factors that each format wants."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from visionpeft.algebra.method import Product
from visionpeft.export.exchange.changes import Change, stored_weight
from visionpeft.export.exchange.names import KOHYA, LYCORIS, PEFT, flat, pattern, target_modules

Metadata = dict[str, str]


@dataclass(frozen=True)
class Encoded:
    """What goes into a file: tensors, metadata of the format's own, and peft's configuration."""

    tensors: dict[str, Tensor]
    metadata: Metadata = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


def encode(form: str, changes: Sequence[Change], model: nn.Module, component: str) -> Encoded:
    """The content of a file.

    Args:
        form: the format.
        changes: what the format can say; products, but for lycoris.
        model: the network; weights are looked up for the exact form of dense changes under a gain.
        component: ``unet`` or ``transformer``, the place of the network in its pipeline.
    """
    found = _ENCODERS[form](changes, model, component)
    plain = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in found.tensors.items()}
    return Encoded(plain, found.metadata, found.config)


def carries_magnitude(form: str) -> bool:
    """Whether DoRA's magnitude is written as such; elsewhere it is worked into the change."""
    return form in ("diffusers-lora", "peft")


def _diffusers(changes: Sequence[Change], model: nn.Module, component: str) -> Encoded:
    """The scale goes into ``lora_B``, since tools other than diffusers read no alpha from such a file."""
    tensors: dict[str, Tensor] = {}
    for change in changes:
        tensors |= _pair(f"{component}.{change.module}", change, product_of(change).pair)
    ranks = {change.module: change.rank or 0 for change in changes}
    config = _lora_config(changes, model, ranks, {path: float(rank) for path, rank in ranks.items()})
    inside = {f"{component}.{key}": value for key, value in config.items()}
    return Encoded(tensors, {"lora_adapter_metadata": json.dumps(inside, sort_keys=True)})


def _peft(changes: Sequence[Change], model: nn.Module, component: str) -> Encoded:
    tensors: dict[str, Tensor] = {}
    for change in changes:
        product = product_of(change)
        tensors |= _pair(f"{PEFT}{change.module}", change, (product.mixer, product.bank))
    ranks = {change.module: change.rank or 0 for change in changes}
    alphas = {change.module: product_of(change).scale * ranks[change.module] for change in changes}
    config = _lora_config(changes, model, ranks, alphas)
    whole = {"peft_type": "LORA", "bias": "none", "inference_mode": True, "lora_dropout": 0.0, **config}
    return Encoded(tensors, {}, whole)


def _kohya(changes: Sequence[Change], model: nn.Module, component: str) -> Encoded:
    """One alpha for all layers: diffusers loses the alphas of attention layers where they differ (0.42.1)."""
    ranks = Counter(change.rank or 0 for change in changes)
    rank = ranks.most_common(1)[0][0]
    alphas = {product_of(change).scale * (change.rank or 0) for change in changes}
    alpha = alphas.pop() if len(alphas) == 1 else float(rank)
    tensors: dict[str, Tensor] = {}
    for change in changes:
        product, name = product_of(change), KOHYA + flat(change.module)
        share = product.scale * (change.rank or 0) / alpha
        up = product.mixer if share == 1 else share * product.mixer
        tensors |= _kohya_layer(name, change, Product(up, product.bank), alpha)
    known = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": str(alpha)}
    return Encoded(tensors, known)


def _lycoris(changes: Sequence[Change], model: nn.Module, component: str) -> Encoded:
    """Products as LoCon, all else as ``diff``, which carries any change."""
    tensors: dict[str, Tensor] = {}
    for change in changes:
        name = LYCORIS + flat(change.module)
        if change.product is not None:
            tensors |= _kohya_layer(name, change, change.product, change.product.scale * (change.rank or 0))
        else:
            native = change.site.to_native(change.additive())
            tensors[f"{name}.diff"] = native.to(stored_weight(model, change).dtype)
    return Encoded(tensors)


_ENCODERS: dict[str, Callable[[Sequence[Change], nn.Module, str], Encoded]] = {
    "diffusers-lora": _diffusers,
    "peft": _peft,
    "kohya": _kohya,
    "lycoris": _lycoris,
}


def product_of(change: Change) -> Product:
    """The product of a change that has been fitted."""
    assert change.product is not None
    return change.product


def _pair(stem: str, change: Change, pair: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """peft's names: ``lora_A`` sees the input, ``lora_B`` makes the output; embeddings have names of their own."""
    up, down = pair
    if change.site.kind == "embedding":
        return {f"{stem}.lora_embedding_A": down, f"{stem}.lora_embedding_B": up}
    found = {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": _pointwise(up, change)}
    if change.magnitude is not None:
        across = change.magnitude if change.site.conv is None else change.magnitude.view(1, -1, *_ones(change))
        found[f"{stem}.lora_magnitude_vector"] = across
    return found


def _kohya_layer(name: str, change: Change, product: Product, alpha: float) -> dict[str, Tensor]:
    return {
        f"{name}.lora_down.weight": product.bank,
        f"{name}.lora_up.weight": _pointwise(product.mixer, change),
        f"{name}.alpha": torch.tensor(alpha),
    }


def _pointwise(up: Tensor, change: Change) -> Tensor:
    """``(out, r)`` as the weight of a 1×1 convolution where the layer is one (the LoCon layout)."""
    return up if change.site.conv is None else up.view(*up.shape, *_ones(change))


def _ones(change: Change) -> list[int]:
    return [1] * len(change.site.kernel)


def _lora_config(
    changes: Sequence[Change], model: nn.Module, ranks: dict[str, int], alphas: dict[str, float]
) -> dict[str, Any]:
    """peft's LoraConfig: the most common rank and alpha, and patterns for the layers that have others."""
    rank, alpha = (Counter(found.values()).most_common(1)[0][0] for found in (ranks, alphas))
    return {
        "r": rank,
        "lora_alpha": int(alpha) if float(alpha).is_integer() else alpha,
        "rank_pattern": {pattern(path): r for path, r in ranks.items() if r != rank},
        "alpha_pattern": {pattern(path): a for path, a in alphas.items() if a != alpha},
        "target_modules": target_modules(model, list(ranks)),
        "use_dora": any(change.magnitude is not None for change in changes),
        "use_rslora": False,
    }
