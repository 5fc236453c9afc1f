"""Recipes: bit-equal where there is one, none where it would be wrong or dear to have one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visionpeft.kernels.eager.guard import usable
from visionpeft.kernels.lowrank_linear.cpu import lowrank_linear
from visionpeft.kernels.recompute import layer_norm as layer_norm_module
from visionpeft.kernels.recompute import reference
from visionpeft.kernels.recompute.activations import leaky_relu, relu, silu
from visionpeft.kernels.recompute.cpu import source_of
from visionpeft.kernels.recompute.norms import group_norm, instance_norm
from visionpeft.kernels.recompute.prelu import prelu


def hidden(dtype=torch.float32) -> Tensor:
    """An activation in the middle of a network."""
    x = torch.randn(4, 6, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    return x * 2


def affine(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linspace(0.5, 1.5, 8, dtype=x.dtype), torch.linspace(-1, 1, 8, dtype=x.dtype)


def by_channel(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linspace(0.5, 1.5, 6, dtype=x.dtype), torch.linspace(-1, 1, 6, dtype=x.dtype)


def slopes(x: Tensor, count: int) -> Tensor:
    return torch.linspace(0.2, 1, count, dtype=x.dtype)


CHEAP = {
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "relu6": F.relu6,
    "leaky relu": lambda x: F.leaky_relu(x, 0.2),
    "prelu": lambda x: F.prelu(x, slopes(x, 1)),
    "prelu channels": lambda x: F.prelu(x, slopes(x, 6)),
    "layer norm": lambda x: F.layer_norm(x, (8,), *affine(x)),
    "layer norm, small ε": lambda x: F.layer_norm(1e-3 * x, (8,), *affine(x), 1e-6),
    "layer norm, plain": lambda x: F.layer_norm(x, (8, 8)),
    "a gain": lambda x: x * slopes(x, 8).requires_grad_(),
    "prelu of ours": lambda x: prelu(x, slopes(x, 6)),
    "instance norm": lambda x: instance_norm(x, None, None),
    "instance norm, affine": lambda x: instance_norm(x, *by_channel(x)),
    "instance norm, prelu": lambda x: prelu(instance_norm(x, None, None), slopes(x, 1)),
    "instance norm, leaky relu in place": lambda x: leaky_relu(instance_norm(x, *by_channel(x)), 0.1, inplace=True),
    "group norm": lambda x: group_norm(x, 2, None, None),
    "group norm, relu in place": lambda x: relu(group_norm(x, 3, *by_channel(x)), inplace=True),
    "group norm, silu": lambda x: silu(group_norm(x, 3, *by_channel(x))),
    "a gain, group norm, relu": lambda x: relu(group_norm(x * slopes(x, 8).requires_grad_(), 3, *by_channel(x))),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", CHEAP)
def test_recipe_is_bit_equal_and_keeps_nothing_new(name, dtype):
    held = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.setdefault(t.data_ptr(), t), lambda t: t):
        y = CHEAP[name](hidden(dtype))
        recipe = source_of(y)
    assert recipe is not None
    assert torch.equal(recipe.made_from(recipe.tensors), y)
    storages = {t.untyped_storage().data_ptr() for t in held.values()}
    assert all(t is None or t.untyped_storage().data_ptr() in storages for t in recipe.tensors)


NO_RECIPE = {
    "a leaf": lambda x: x.detach().requires_grad_(),
    "relu": F.relu,
    "a sum": lambda x: x + 1,
    "group norm": lambda x: F.group_norm(x, 2),
    "instance norm": lambda x: F.instance_norm(x),
    "a number's gain": lambda x: x * 3,
    "a gain of what needs no gradient": lambda x: x.detach() * torch.ones(8, requires_grad=True),
    "changed in place after an activation in place": lambda x: relu(group_norm(x, 2, None, None), inplace=True).mul_(2),
    "modified in place": lambda x: F.gelu(x).mul_(2),
    "modified behind autograd's back": lambda x: _bump(F.gelu(x)),
    "a part of it": lambda x: F.gelu(x)[0],
    "layer norm of unusual ε": lambda x: F.layer_norm(1e-2 * x, (8,), eps=3e-4),
}


def _bump(x: Tensor) -> Tensor:
    with torch.no_grad():
        x.mul_(2)
    return x


@pytest.mark.parametrize("name", NO_RECIPE)
def test_no_recipe_for(name):
    assert source_of(NO_RECIPE[name](hidden())) is None


def test_no_recipe_without_gradients_or_after_backward():
    with torch.no_grad():
        assert source_of(F.gelu(hidden())) is None
    y = F.gelu(hidden())
    y.sum().backward()
    assert source_of(y) is None


def test_no_recipe_when_the_source_was_modified():
    h = hidden()
    y = F.gelu(h)
    with torch.no_grad():
        h.mul_(2)
    assert source_of(y) is None


def test_the_epsilon_is_not_mistaken_when_a_weight_is_shared():
    weight, h = torch.ones(8), 1e-3 * hidden()
    first = F.layer_norm(h, (8,), weight, None, 1e-6)
    assert source_of(first) is not None and layer_norm_module._known[weight] == 1e-6
    second = F.layer_norm(h, (8,), weight, None, 1e-5)
    recipe = source_of(second)
    assert recipe is not None
    torch.testing.assert_close(recipe.made_from(recipe.tensors), second)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_regions_are_not_looked_into(reentrant):
    runs = []

    def region(x: Tensor) -> Tensor:
        runs.append(1)
        y = F.gelu(x * 2)
        if not reentrant:
            assert source_of(y) is None
        return y

    y = checkpoint(region, hidden(), use_reentrant=reentrant)
    assert source_of(y) is None and len(runs) == 1
    with torch.autograd.graph.save_on_cpu():
        assert source_of(F.gelu(hidden())) is None


def test_modification_in_place_is_still_detected():
    h = hidden()
    y = F.gelu(h)
    a, b = torch.randn(2, 8, requires_grad=True), torch.randn(3, 2, requires_grad=True)
    z = lowrank_linear(y, torch.randn(3, 8), None, b, a)
    with torch.no_grad():
        h.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(z.sum(), [a, b])


def test_usable_only_for_plain_tensors_evaluated_now():
    x = torch.randn(2, 3)
    seen = []

    class Wrapped(Tensor):
        pass

    torch.func.vmap(lambda t: seen.append(usable(t)) or t)(x)
    torch.func.grad(lambda t: seen.append(usable(t)) or t.sum())(x)
    torch.compile(lambda t: t + 1 if usable(t) else t + 2, backend="eager", fullgraph=True)(x)
    assert seen == [False, False]
    assert torch.equal(torch.compile(lambda t: t + (1 if usable(t) else 2), backend="eager")(x), x + 2)
    assert usable(x, None, nn.Parameter(x))
    assert not usable(x, x.as_subclass(Wrapped)) and not usable(x.to("meta"))


@pytest.mark.parametrize("trains", [False, True])
@pytest.mark.parametrize("slopes", [1, 6])
@pytest.mark.parametrize("normalise", [False, True])
def test_prelu_equals_the_definition(slopes, normalise, trains):
    h, weight = hidden(), torch.linspace(-0.5, 1, slopes).requires_grad_(trains)
    x = instance_norm(h, None, None) if normalise else h
    wanted = [h, weight] if trains else [h]
    gy = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    ours, right = prelu(x, weight), reference.prelu(x, weight)
    assert torch.equal(ours, right)
    theirs = torch.autograd.grad(right, wanted, gy, retain_graph=True)
    for a, b in zip(torch.autograd.grad(ours, wanted, gy), theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
