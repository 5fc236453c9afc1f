"""What a foreign layer does to a weight: LoRA (LoCon), LoHa, LoKr, a whole difference, and DoRA's gain over any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from visionpeft.algebra.method import Product
from visionpeft.algebra.site import Site
from visionpeft.errors import AdapterFileError
from visionpeft.export.exchange.changes import Change
from visionpeft.export.exchange.layers import UNSAYABLE, Layer

Tensors = Mapping[str, Tensor]


def refusal(layer: Layer, site: Site | None = None) -> str | None:
    """One sentence saying why a layer is no change that we have, or None."""
    if layer.kind in UNSAYABLE:
        return f"{layer.kind}: {UNSAYABLE[layer.kind]}"
    scale = layer.tensors.get("dora_scale")
    if scale is not None and scale.dim() > 1 and scale.shape[0] == 1 < scale.numel():
        return "DoRA with one magnitude an input channel (LyCORIS' wd_on_out=False); ours has one an output channel"
    if layer.gained and site is not None and site.kind == "embedding":
        return "DoRA of an embedding has one magnitude an entry here and one a channel there"
    return None


def change_of(layer: Layer, place: Change, scale: float) -> Change:
    """The change that a layer makes.

    Args:
        layer: of a kind that :func:`refusal` does not refuse.
        place: path and geometry of the weight, without a change.
        scale: what the product of the factors is multiplied by.

    Raises:
        AdapterFileError: the factors have other shapes than this weight asks for.
    """
    site = place.site
    try:
        made = _MADE[layer.kind](layer.tensors, site, scale)
        magnitude = layer.tensors.get("magnitude", layer.tensors.get("dora_scale"))
        if magnitude is not None:
            place = replace(place, magnitude=magnitude.reshape(site.out).float())
    except (RuntimeError, KeyError) as error:
        shapes = {role: tuple(t.shape) for role, t in layer.tensors.items() if role != "alpha"}
        raise AdapterFileError(
            f"{layer.name}: {layer.kind} factors {shapes} do not make a change of {place.path}, which is {site.shape} "
            "here: the adapter is for another architecture"
        ) from error
    return replace(place, product=made) if isinstance(made, Product) else replace(place, dense=made)


def _lora(t: Tensors, site: Site, scale: float) -> Product:
    """``up · down``; LoCon's Tucker form has a ``mid`` of ``(r, r, *kernel)`` between two pointwise factors."""
    down, up = t["down"].float(), t["up"].float()
    rank = down.shape[0]
    if "mid" in t:
        down = torch.einsum("ij...,jc->ic...", t["mid"].float(), down.reshape(rank, -1))
    return Product(up.reshape(site.out, up.shape[1]), down.reshape(up.shape[1], *site.shape[1:]), scale)


def _loha(t: Tensors, site: Site, scale: float) -> Tensor:
    """The elementwise product of two low-rank matrices. "FedPara", 2021, as LyCORIS has it."""
    halves = [_half(t, n) for n in ("1", "2")]
    return scale * (halves[0] * halves[1]).reshape(site.shape)


def _half(t: Tensors, n: str) -> Tensor:
    a, b = t[f"hada_w{n}_a"].double(), t[f"hada_w{n}_b"].double()
    if f"hada_t{n}" not in t:
        return a @ b
    return torch.einsum("ij...,jc,io->oc...", t[f"hada_t{n}"].double(), b, a)


def _lokr(t: Tensors, site: Site, scale: float) -> Tensor:
    """The Kronecker product of two matrices, each whole or of low rank. "KronA", 2022, as LyCORIS has it."""
    first = t["lokr_w1"].double() if "lokr_w1" in t else t["lokr_w1_a"].double() @ t["lokr_w1_b"].double()
    second = _lokr_second(t)
    first = first.view(*first.shape, *[1] * (second.dim() - 2))
    return scale * torch.kron(first, second.contiguous()).reshape(site.shape)


def _lokr_second(t: Tensors) -> Tensor:
    if "lokr_w2" in t:
        return t["lokr_w2"].double()
    a, b = t["lokr_w2_a"].double(), t["lokr_w2_b"].double()
    if "lokr_t2" not in t:
        return (a @ b.flatten(1)).view(len(a), *b.shape[1:])
    return torch.einsum("ij...,jc,io->oc...", t["lokr_t2"].double(), b, a)


def _full(t: Tensors, site: Site, scale: float) -> Tensor:
    return site.canonical(t["diff"].double().reshape(site.native))


_MADE = {"LoRA": _lora, "LoHa": _loha, "LoKr": _lokr, "full difference": _full}
