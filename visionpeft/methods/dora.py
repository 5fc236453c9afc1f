"""DoRA, once, over any additive method."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from visionpeft.algebra.factor import Factor, row_norms, squared_rows
from visionpeft.algebra.method import Factors, Method, Options, at_least_float32, in_dtype
from visionpeft.algebra.site import Site
from visionpeft.errors import OptionError
from visionpeft.methods.cp import CPLoRA
from visionpeft.methods.lora import ConvLoRA, LoRA
from visionpeft.methods.lora_c import LoRAC
from visionpeft.methods.registry import combinator, make, register


class DoRAOver(Method):
    """``W' = m ⊙ (W+ΔW)/‖W+ΔW‖`` with the norm of each output row, detached from the gradient.

    "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024. A mixin before an additive method's class: it adds
    ``magnitude: (out,)``, which starts as the norm of W, and turns the method's ΔW into the change of the whole weight.
    The bias is added after the gain and never scaled by it, unlike in several released libraries.
    """

    multiplicative: ClassVar[bool] = True

    def __reduce__(self):  # classes built on demand are found again by their name
        return make, (self.name, self.options())

    def refuse(self, site: Site) -> str | None:
        if not self.mergeable:
            return "DoRA scales the changed weight, and with these options there is no change of the weight"
        return super().refuse(site)

    def factors(self, site: Site) -> dict[str, Factor]:
        return {**super().factors(site), "magnitude": Factor((site.out,), row_norms)}

    def gain(self, site: Site, f: Factors, weight: Tensor) -> Tensor:
        """``m/‖W+ΔW‖: (out,)``. Rows of zeros get gain zero instead of NaN."""
        with torch.no_grad():
            norm = self.norm(site, f, weight)
        return f["magnitude"] / norm.clamp_min(torch.finfo(norm.dtype).tiny).to(f["magnitude"].dtype)

    def norm(self, site: Site, f: Factors, weight: Tensor) -> Tensor:
        """``‖W+ΔW‖`` by row, from Gram matrices of the factors where there is a split: no dense ΔW."""
        weight = at_least_float32(weight)
        f = {name: at_least_float32(t) for name, t in f.items()}
        if (parts := self.split(site, f)) is None:
            return squared_rows(weight + self.delta(site, f)).sqrt()
        mixer, bank = parts[0], parts[1].flatten(1)
        cross = (mixer * (weight.flatten(1) @ bank.t())).sum(1)
        square = (mixer @ (bank @ bank.t()) * mixer).sum(1)
        return (squared_rows(weight) + 2 * cross + square).clamp_min(0).sqrt()

    def change(self, site: Site, f: Factors, weight: Tensor) -> Tensor:
        gain = self.gain(site, f, weight).view(-1, *[1] * (len(site.shape) - 1))
        return (gain - 1) * weight + gain * self.delta(site, f)

    def effect(self, site: Site, f: Factors, x: Tensor, base: Tensor, weight: Tensor) -> Tensor | None:
        if (branch := self.branch(site, in_dtype(f, base.dtype), x)) is None:
            return None
        gain = site.per_channel(self.gain(site, f, weight)).to(base.dtype)
        return (gain - 1) * base + gain * branch


@cache
def dora_over(inner: type[Options]) -> type[Method]:
    """DoRA over an additive method, named ``dora(NAME)``.

    Raises:
        OptionError: the method has no additive change of the weight.
    """
    if not issubclass(inner, Method) or inner.multiplicative or inner.delta is Method.delta:
        raise OptionError(
            f"dora({inner.name}): {inner.name} is not weight-additive; take one that is, such as dora(flora)"
        )
    return _build(inner, f"dora({inner.name})", f"DoRAOver{inner.__name__}")


def _build(inner: type[Method], name: str, class_name: str) -> type[Method]:
    paper = f"DoRA: Weight-Decomposed Low-Rank Adaptation, 2024; over {inner.name}"
    doc = f"DoRA over ``{inner.name}``: its factors and options, and a ``magnitude: (out,)``."
    body = {"name": name, "paper": paper, "__doc__": doc, "__module__": __name__}
    return dataclass(frozen=True, kw_only=True)(type(class_name, (DoRAOver, inner), body))


combinator("dora", dora_over)
DoRA = register(_build(LoRA, "dora", "DoRA"))
ConvDoRA = register(_build(ConvLoRA, "conv_dora", "ConvDoRA"))
DoRAC = register(_build(LoRAC, "dora_c", "DoRAC"))
CPDoRA = register(_build(CPLoRA, "cp_dora", "CPDoRA"))
