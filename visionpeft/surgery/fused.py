"""The fused path: all low-rank adapters of a weight as one mixer and one bank, in one autograd function.

Eager mode only; the functions live in ``kernels/``. Everything that has a split can go this way: the sum of several
adapters is the concatenation of their factors, and a slice is a mixer with zero rows.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from visionpeft.algebra.factor import Origin
from visionpeft.algebra.method import Change, Method, Product, Spectral
from visionpeft.algebra.site import Site
from visionpeft.kernels.lowrank_conv import dora  # pyright: ignore[reportMissingImports]
from visionpeft.kernels.lowrank_conv.cpu import ConvGeometry, lowrank_conv  # pyright: ignore[reportMissingImports]
from visionpeft.kernels.lowrank_linear.cpu import lowrank_linear  # pyright: ignore[reportMissingImports]
from visionpeft.kernels.spectral_linear.cpu import spectral_linear  # pyright: ignore[reportMissingImports]
from visionpeft.surgery.slots import Slot, started


def possible(site: Site, slots: list[Slot]) -> bool:
    """Whether these adapters may run fused on plain eager tensors: methods with a split, on a layer."""
    return site.kind in ("linear", "conv") and all(_has_split(slot) for slot in slots)


def _has_split(slot: Slot) -> bool:
    return isinstance(slot.method, Method) and isinstance(slot.site, Site) and _splits(slot.method, slot.site)


@lru_cache(maxsize=4096)
def _splits(method: Method, site: Site) -> bool:
    """Whether the method has a low-rank form at this site, asked once on meta tensors."""
    origin = Origin(torch.empty(site.shape, device="meta"))
    factors = {name: tensor for name, (_, tensor) in started(method, site, origin).items()}
    return method.split(site, factors) is not None


def run(site: Site, slots: list[Slot], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``W+ΔW`` applied by the kernels; the gain of a multiplicative adapter, alone, in the weight or on the result."""
    device = x.device.type
    if device != "meta" and torch.is_autocast_enabled(device):
        # The kernels take one dtype; what autocasting would do inside an ordinary operation is done before.
        low = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return run(site, slots, x.to(low), weight.to(low), None if bias is None else bias.to(low))
    change = _joined([_product(slot, x.dtype) for slot in slots])
    first = slots[0]
    if not first.method.multiplicative:  # pyright: ignore[reportAttributeAccessIssue]
        return _apply(site, x, weight, bias, change)
    if site.conv is not None and dora.possible(x, weight, bias):
        return _convolve(site, x, weight, bias, change, first.factors(x.dtype)["magnitude"])
    y = _apply(site, x, weight, None, change)
    gain = first.method.gain(site, first.factors(), site.canonical(weight))  # pyright: ignore
    y = y * site.per_channel(gain).to(y.dtype)
    return y if bias is None else y + site.per_channel(bias).to(y.dtype)


def _joined(parts: list[Change]) -> Change:
    """Several products as one of the summed rank."""
    if len(parts) == 1:
        return parts[0]
    mixers, banks = zip(*(part.pair for part in parts), strict=True)
    return Product(torch.cat(mixers, dim=1), torch.cat(banks))


def _product(slot: Slot, dtype: torch.dtype) -> Change:
    assert isinstance(slot.method, Method) and isinstance(slot.site, Site)
    product = slot.method.product(slot.site, slot.factors(dtype))
    assert product is not None
    if slot.strength != 1:
        product = product._replace(scale=slot.strength * product.scale)
    if not slot.site.is_slice:
        return product
    mixer, bank = product.pair
    return Product(slot.site.whole_rows(mixer, 0), bank)


def _apply(site: Site, x: Tensor, weight: Tensor, bias: Tensor | None, change: Change) -> Tensor:
    if site.conv is None:
        kernel = spectral_linear if isinstance(change, Spectral) else lowrank_linear
        return kernel(x, weight.t() if site.layout == "swapped" else weight, bias, *change)
    return _convolve(site, x, weight, bias, change)


def _convolve(
    site: Site, x: Tensor, weight: Tensor, bias: Tensor | None, change: Change, magnitude: Tensor | None = None
) -> Tensor:
    assert site.conv is not None and not isinstance(change, Spectral), "a spectral change is that of a linear site"
    g = site.conv
    walk = ConvGeometry(g.stride, g.inner_padding, g.dilation, g.transposed, g.output_padding, g.groups)
    if magnitude is None:
        return lowrank_conv(g.pad(x), weight, bias, change.mixer, change.bank, walk, change.scale)
    return dora.dora_conv(g.pad(x), weight, bias, change.mixer, change.bank, magnitude, walk, change.scale)
