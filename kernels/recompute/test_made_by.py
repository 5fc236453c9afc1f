"""Labels: what a cheap function of parameters was made by, and when a label must not be believed."""

from __future__ import annotations

import pickle
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visionpeft.kernels.lowrank_linear.cpu import lowrank_linear
from visionpeft.kernels.recompute import cpu
from visionpeft.kernels.recompute.cpu import made_by, source_of


def doubled(factor: Tensor) -> Tensor:
    return 2 * factor


def factor(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))))


class Layer(nn.Module):
    """A frozen Linear with a mixer that is made from a factor."""

    def __init__(self, labelled: bool):
        super().__init__()
        self.a, self.b, self.labelled = factor(2, 6), factor(5, 2), labelled
        self.register_buffer("weight", torch.randn(5, 6, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        mixer, bank = doubled(self.b), doubled(self.a)
        if self.labelled:
            mixer, bank = made_by(mixer, doubled, (self.b,)), made_by(bank, doubled, (self.a,))
        return lowrank_linear(x, self.weight, None, mixer, bank)


def gradients(layer: Layer, run) -> list[Tensor]:
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))
    return list(torch.autograd.grad(run(layer, x).square().sum(), [layer.a, layer.b]))


def plain(layer: Layer, x: Tensor) -> Tensor:
    return layer(x)


@pytest.fixture(autouse=True)
def _label_small_ones_too(monkeypatch):
    monkeypatch.setattr(cpu, "FEWEST", 0)


def test_a_label_makes_the_tensor_again():
    b = factor(3, 2)
    recipe = source_of(made_by(doubled(b), doubled, (b,)))
    assert recipe is not None and torch.equal(recipe.made_from(recipe.tensors), 2 * b)


def test_views_and_copies_have_no_label():
    b = factor(3, 2)
    y = made_by(doubled(b), doubled, (b,))
    assert all(source_of(other) is None for other in (y.t(), y[:2], y.clone(), y * 1))


@pytest.mark.parametrize("change", ["result", "factor"])
def test_a_change_in_place_unmakes_the_label(change: str):
    b = factor(3, 2)
    y = made_by(doubled(b), doubled, (b,))
    with torch.no_grad():
        (y if change == "result" else b).add_(1)
    assert source_of(y) is None


def test_labels_change_no_gradient():
    wanted = gradients(Layer(labelled=False), plain)
    for found in (
        gradients(Layer(labelled=True), plain),
        gradients(deepcopy(Layer(labelled=True)), plain),
        gradients(pickle.loads(pickle.dumps(Layer(labelled=True))), plain),
        gradients(Layer(labelled=True), lambda layer, x: checkpoint(layer, x, use_reentrant=False)),
    ):
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_labelled_tensors_are_not_kept():
    def kept(labelled: bool) -> set[tuple[int, ...]]:
        layer, shapes = Layer(labelled), set()
        own = {p.data_ptr() for p in (*layer.parameters(), *layer.buffers())}

        def pack(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in own:
                shapes.add(tuple(tensor.shape))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            layer(torch.randn(7, 6))
        return shapes

    assert {(5, 2), (2, 6)} <= kept(labelled=False)
    assert not {(5, 2), (2, 6)} & kept(labelled=True)


def test_a_factor_changed_before_backward_is_still_an_error():
    layer = Layer(labelled=True)
    loss = layer(torch.randn(7, 6)).sum()
    with torch.no_grad():
        layer.b.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
