"""Swapped norms and activations: the same network in every way of running it, which keeps fewer maps."""

from __future__ import annotations

import pickle
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visionpeft.kernels.lowrank_linear.cpu import lowrank_linear
from visionpeft.kernels.recompute.layers import RecomputingPReLU, attach, detach

PAIRS = {
    "instance, prelu": lambda: (nn.InstanceNorm2d(4), nn.PReLU()),
    "instance, leaky relu in place": lambda: (nn.InstanceNorm2d(4, affine=True), nn.LeakyReLU(0.1, inplace=True)),
    "instance, leaky relu": lambda: (nn.InstanceNorm2d(4, affine=True), nn.LeakyReLU(0.1)),
    "group, relu in place": lambda: (nn.GroupNorm(2, 4), nn.ReLU(inplace=True)),
    "group, relu": lambda: (nn.GroupNorm(2, 4), nn.ReLU()),
    "group, silu": lambda: (nn.GroupNorm(4, 4, affine=False), nn.SiLU()),
}


def network(pair: str, trains: bool = False) -> nn.Sequential:
    """Convolution, norm, activation; the affine part is stirred."""
    g = torch.Generator().manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), *PAIRS[pair]())
    for parameter in layers[:2].parameters():
        parameter.data = torch.randn(parameter.shape, generator=g)
    for parameter in layers[1].parameters():
        parameter.requires_grad_(trains)
    layers[2].requires_grad_(False)
    return layers


def images(*shape: int) -> Tensor:
    return torch.randn(*(shape or (2, 4, 16, 16)), generator=torch.Generator().manual_seed(1))


def results(layers: nn.Module, run=lambda layers, x: layers(x), x: Tensor | None = None) -> list[Tensor]:
    """Output, and the gradients of the input and all that trains."""
    x = (images() if x is None else x).requires_grad_()
    wanted = [x, *(parameter for parameter in layers.parameters() if parameter.requires_grad)]
    for tensor in wanted:
        tensor.grad = None
    y = run(layers, x)
    y.backward(torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=y.dtype))
    return [y.detach(), *(tensor.grad for tensor in wanted)]


def same(found: list[Tensor], wanted: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("pair", PAIRS)
def test_values_and_gradients_are_those_of_torch_bit_for_bit(pair, trains):
    layers = network(pair, trains)
    wanted = results(layers)
    attach(layers)
    assert same(results(layers), wanted)


def autocast(layers: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return layers(x)


def functional(layers: nn.Module, x: Tensor) -> Tensor:
    return torch.func.functional_call(layers, dict(layers.named_parameters()), (x,))


WAYS = {
    "autocast": autocast,
    "functional call": functional,
    "checkpoint": lambda layers, x: checkpoint(layers, x, use_reentrant=False),
    "reentrant checkpoint": lambda layers, x: checkpoint(layers, x, use_reentrant=True),
    "compiled": lambda layers, x: torch.compile(layers, backend="eager", fullgraph=True)(x),
    "evaluation": lambda layers, x: deepcopy(layers).eval()(x),
    "channels last": lambda layers, x: layers(x.to(memory_format=torch.channels_last)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pair", ["instance, prelu", "instance, leaky relu in place", "group, relu in place"])
def test_every_way_of_running_it_gives_what_torch_gives(pair, way):
    layers = network(pair)
    layers.requires_grad_(False)
    wanted = results(layers, WAYS[way])
    attach(layers)
    assert same(results(layers, WAYS[way]), wanted)
    with torch.no_grad():
        found = layers(images())
        detach(layers)
        assert torch.equal(found, layers(images()))


@pytest.mark.parametrize("pair", ["instance, leaky relu in place", "group, relu in place"])
def test_under_a_transform_of_torch_func(pair):
    layers = network(pair).requires_grad_(False)

    def gradient() -> Tensor:
        return torch.func.vmap(torch.func.grad(lambda x: layers(x).sum()))(images(3, 2, 4, 8, 8))

    wanted = gradient()
    attach(layers)
    assert torch.equal(gradient(), wanted)


def maps_kept(layers: nn.Module) -> int:
    """Maps of the size of the input, other than it, that autograd keeps when a low-rank layer follows."""
    kept, x = {}, images().requires_grad_()

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() == x.numel():
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        h = layers(x)
        lowrank_linear(h, *_factors(h))
    return len(kept) - (x.untyped_storage().data_ptr() in kept)


def _factors(h: Tensor) -> tuple[Tensor, None, Tensor, Tensor]:
    width = h.shape[-1]
    return torch.ones(3, width), None, torch.ones(3, 1, requires_grad=True), torch.ones(1, width, requires_grad=True)


@pytest.mark.parametrize("pair", PAIRS)
def test_of_convolution_norm_and_activation_one_map_is_kept(pair):
    layers = network(pair)
    before = maps_kept(layers)
    attach(layers)
    assert before == 2 and maps_kept(layers) == 1


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_a_norm_behind_a_gain_keeps_no_map_of_its_own(norm):
    """A DoRA scales what a convolution gives, and its gradient needs the map before."""
    layers = network({"instance": "instance, leaky relu in place", "group": "group, relu in place"}[norm])

    class Gained(nn.Sequential):
        def forward(self, input: Tensor) -> Tensor:
            convolution, *others = self
            h = convolution(input) * self.gain
            for layer in others:
                h = layer(h)
            return h

    gained = Gained(*layers)
    gained.gain = nn.Parameter(torch.linspace(0.5, 2, 4).view(4, 1, 1))
    before, wanted = maps_kept(gained), results(gained)
    attach(gained)
    assert before == 3 and maps_kept(gained) == 1
    assert same(results(gained), wanted)


def test_an_activation_in_place_still_changes_its_input():
    norm, activation = layers = nn.Sequential(nn.GroupNorm(2, 4), nn.ReLU(inplace=True))
    attach(layers)
    y = norm(images().requires_grad_())
    z = activation(y)
    assert z is y and z.min() == 0
    (y + z).sum().backward()


def test_a_batch_of_single_values_is_refused_as_by_torch():
    for norm, shape in ((nn.InstanceNorm2d(4), (2, 4, 1, 1)), (nn.GroupNorm(4, 4), (1, 4, 1, 1))):
        attach(norm)
        with pytest.raises(ValueError, match="Expected more than 1"):
            norm(images(*shape).requires_grad_())


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(4, track_running_stats=True), nn.InstanceNorm2d(4)])
def test_instance_norm_with_running_statistics_or_without_a_batch(norm):
    own = deepcopy(norm)
    attach(own)
    for layer in (norm, own):
        layer.train()
    for x in (images(), images(4, 8, 8)):
        assert same(results(own, x=x.clone()), results(norm, x=x.clone()))
    assert all(torch.equal(a, b) for a, b in zip(own.buffers(), norm.buffers(), strict=True))


def test_parameters_whose_storage_goes_before_the_backward_pass():
    """As FSDP takes it: what another layer's backward pass needs is no longer there."""
    layers = network("group, relu in place")
    wanted = results(layers)[0]
    attach(layers)
    x = images().requires_grad_()
    y = layers(x)
    z = lowrank_linear(y, *_factors(y))
    for parameter in layers[1].parameters():
        parameter.untyped_storage().resize_(0)
    (gy,) = torch.autograd.grad(z.sum(), x)
    assert torch.equal(y, wanted) and gy.isfinite().all()


def test_attach_and_detach_leave_no_trace():
    inner = nn.PReLU(4)
    model = nn.Sequential(nn.PReLU(), nn.GroupNorm(2, 4), nn.InstanceNorm1d(4), nn.Sequential(inner, nn.SiLU()))
    keys, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    assert attach(model) == 5 and attach(model) == 0
    assert list(model.state_dict()) == keys and all(
        isinstance(m, k) for m, k in zip(model.modules(), kinds, strict=True)
    )
    for copy in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(copy[0]) is RecomputingPReLU
    assert detach(model) == 5 and [type(module) for module in model.modules()] == kinds
