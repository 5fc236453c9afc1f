"""What an adapter does to each weight of a model: its change, as a product of two factors where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionpeft.algebra.factor import squared_rows
from visionpeft.algebra.method import Method, Product, Spectral, Tiled
from visionpeft.algebra.site import Site
from visionpeft.errors import StateError
from visionpeft.methods.dora import DoRAOver
from visionpeft.surgery.folder import trained_beside
from visionpeft.surgery.ledger import record
from visionpeft.surgery.merge import is_merged
from visionpeft.surgery.mount import adapters, hosts
from visionpeft.surgery.slots import Slot
from visionpeft.surgery.targets import weights_of


@dataclass(frozen=True, eq=False)
class Change:
    """The change of one whole weight, in canonical shape ``(out, in/groups, *kernel)``.

    Args:
        path: the weight as :func:`visionpeft.surgery.targets.weights_of` names it.
        module: path of the module that owns it.
        parameter: its name there.
        site: the geometry of the whole weight.
        product: ``scale · mixer (out, r) · bank (r, in/groups, *kernel)``, where the change has that form.
        dense: the change itself, where it has not.
        magnitude: ``(out,)``, the norms that DoRA gives the rows of the changed weight.
    """

    path: str
    module: str
    parameter: str
    site: Site
    product: Product | None = None
    dense: Tensor | None = None
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int | None:
        """Of the product; None for a dense change."""
        return None if self.product is None else self.product.mixer.shape[1]

    def additive(self) -> Tensor:
        """The change before DoRA's gain, in float64."""
        if self.product is None:
            assert self.dense is not None
            return self.dense.double()
        return self.product.scale * torch.tensordot(self.product.mixer.double(), self.product.bank.double(), dims=1)

    def delta(self, stored: Tensor) -> Tensor:
        """ΔW in float64; ``stored`` is the weight as its module holds it, which DoRA's gain depends on."""
        change = self.additive()
        if self.magnitude is None:
            return change
        weight = self.site.canonical(stored.detach().double())
        norms = squared_rows(weight + change).sqrt().clamp_min(torch.finfo(torch.float64).tiny)
        gain = (self.magnitude.double() / norms).view(-1, *[1] * (change.dim() - 1))
        return gain * (weight + change) - weight


def deltas(model: nn.Module, name: str = "default") -> Iterator[tuple[str, Site, Tensor]]:
    """(weight path, geometry, ΔW) of every weight that an adapter changes, in module order.

    ΔW is canonical, ``(out, in/groups, *kernel)``, in float64, of the whole weight: slices of fused projections are
    summed. The strength that the adapter acts with at the moment is not in it.

    Raises:
        StateError: as for :func:`changes`.
    """
    for change in changes(model, name):
        yield change.path, change.site, change.delta(stored_weight(model, change))


def stored_weight(model: nn.Module, change: Change) -> Tensor:
    """The base weight that a change belongs to."""
    found = model.get_submodule(change.module)._parameters[change.parameter]
    assert found is not None
    return found.detach()


@torch.no_grad()
def changes(model: nn.Module, name: str = "default") -> list[Change]:
    """The changes that an adapter makes, one a weight, in module order.

    Raises:
        StateError: no such adapter, the model is merged, or the method is no change of weights.
    """
    known = record(model, name)
    if is_merged(model):
        raise StateError("exchange: the model is merged; call unmerge first")
    if not known.method.mergeable:
        raise StateError(
            f"exchange: {known.method.name} acts on activations and is no change of weights: no other tool can carry "
            "it. The adapter folder holds it"
        )
    paths = {(weight.module_path, weight.parameter): weight.path for weight in weights_of(model)}
    found = []
    for module, host in hosts(model):
        slots: dict[str, list[Slot]] = {}
        for _, _, slot in adapters(host).slots(name):
            slots.setdefault(slot.parameter, []).append(slot)
        for parameter, sharing in slots.items():
            site, stored = adapters(host).sites[parameter], host._parameters[parameter]
            assert stored is not None
            parts = _joined(sharing, site, stored.detach())
            found.append(Change(paths[module, parameter], module, parameter, site, *parts))
    return found


def left_out(model: nn.Module, name: str = "default") -> dict[str, str]:
    """What was trained beside the factors, which no exchanged file holds: name → reason."""
    return dict.fromkeys(trained_beside(model, name), "trained whole beside the adapter, not a change of low rank")


Parts = tuple[Product | None, Tensor | None, Tensor | None]


def _joined(slots: list[Slot], site: Site, stored: Tensor) -> Parts:
    """Product, dense change and magnitude of a whole weight, from the slots that share it."""
    if len(slots) == 1 and not slots[0].site.is_slice:  # pyright: ignore[reportAttributeAccessIssue]
        return _whole(slots[0], stored)
    products = [_product(slot) for slot in slots]
    if any(product is None for product in products) or any(isinstance(slot.method, DoRAOver) for slot in slots):
        return None, sum((_dense(slot, stored) for slot in slots), torch.zeros(site.shape).double()), None
    mixers, banks = [], []
    for slot, product in zip(slots, products, strict=True):
        assert product is not None and isinstance(slot.site, Site)
        mixers.append(slot.site.whole_rows(product.scale * product.mixer, dim=0))
        banks.append(product.bank)
    return Product(torch.cat(mixers, dim=1), torch.cat(banks)), None, None


def _whole(slot: Slot, stored: Tensor) -> Parts:
    product = _product(slot)
    if not isinstance(slot.method, DoRAOver):
        return product, None if product is not None else _dense(slot, stored), None
    magnitude = slot.factor("magnitude").detach()
    if product is not None:
        return product, None, magnitude
    assert isinstance(slot.site, Site)
    return None, slot.method.delta(slot.site, slot.factors(torch.float64)).detach(), magnitude


def _product(slot: Slot) -> Product | None:
    """The factors as they are stored, or the nearest thing that the method knows."""
    assert isinstance(slot.method, Method) and isinstance(slot.site, Site)
    found = slot.method.product(slot.site, {name: factor.detach() for name, factor in slot.factors().items()})
    return Product(*found.pair) if isinstance(found, (Spectral, Tiled)) else found


def _dense(slot: Slot, stored: Tensor) -> Tensor:
    """The whole change, DoRA's gain included, with zeros in the rows of other slices."""
    assert isinstance(slot.method, Method) and isinstance(slot.site, Site)
    own = slot.site.canonical(stored.double())
    return slot.site.whole_rows(slot.method.change(slot.site, slot.factors(torch.float64), own).detach(), dim=0)
