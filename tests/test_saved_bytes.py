"""On MONAI's 3D networks every adapter keeps fewer bytes for the backward pass than full fine-tuning does."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from monai.networks.nets.dynunet import DynUNet
from monai.networks.nets.segresnet import SegResNet
from torch import Tensor, nn

import visionpeft as vp
from visionpeft.bench.contestants import FULL, contestant
from visionpeft.bench.measure import saved_bytes
from visionpeft.bench.nets import build
from visionpeft.kernels.recompute.layers import attach, detach

NETWORKS = {
    "DynUNet": lambda: DynUNet(3, 1, 2, [3] * 3, [1, 2, 2], [2] * 2, [8, 12, 16]),
    "DynUNet, residual": lambda: DynUNet(3, 1, 2, [3] * 3, [1, 2, 2], [2] * 2, [8, 12, 16], res_block=True),
    "SegResNet": lambda: SegResNet(init_filters=8, blocks_down=(1, 1, 1), blocks_up=(1, 1)),
}
METHODS = ("lora", "conv_lora", "block_lora", "cp_lora", "flora", "salt", "wara", "dora", "conv_dora", "cp_dora")
SEPARABLE = ("lora_c:layout=separable", "dora_c:layout=separable")  # in 3D the other layout does not exist


def small(network: str) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[network]()
    return model.train(), torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))


@cache
def full_bytes(network: str) -> int:
    return saved_bytes(contestant(FULL, *(small(network) if network in NETWORKS else build(network)), rank=8))


@pytest.mark.parametrize("method", ["lora", "cp_dora", *SEPARABLE])
@pytest.mark.parametrize("network", NETWORKS)
def test_adapting_a_small_network_keeps_less_than_full_fine_tuning(network, method):
    assert saved_bytes(contestant(method, *small(network), rank=8)) < 0.95 * full_bytes(network)


@pytest.mark.slow
@pytest.mark.parametrize("method", [*METHODS, *SEPARABLE])
@pytest.mark.parametrize("network", ["dynunet-3d@32", "segresnet-3d@32"])
def test_every_named_method_keeps_less_than_full_fine_tuning(network, method):
    assert saved_bytes(contestant(method, *build(network), rank=8)) < full_bytes(network)


def adapted(network: str, method: str) -> tuple[nn.Module, Tensor]:
    """Small, and stirred, so that every factor has a gradient."""
    model, x = small(network)
    g = torch.Generator().manual_seed(2)
    vp.adapt(model, method, rank=2, train_also="norm", generator=g)
    with torch.no_grad():
        for parameter in vp.adapter_parameters(model).values():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=g))
    return model, x


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    y = model(x)
    return [y.detach(), *torch.autograd.grad(y.square().mean(), trained)]


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_made_again_is_what_was_made(network, method):
    model, x = adapted(network, method)
    ours = gradients(model, x)
    assert detach(model) > 3
    theirs = gradients(model, x)
    attach(model)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("network", NETWORKS)
def test_removal_gives_back_the_layers_of_the_network(network):
    model, x = small(network)
    before, kinds, keys = model(x), [type(module) for module in model.modules()], list(model.state_dict())
    vp.adapt(model, "lora", rank=2)
    assert {key for key in model.state_dict() if ".adapters." not in key} == set(keys)
    vp.remove(model)
    assert [type(module) for module in model.modules()] == kinds and list(model.state_dict()) == keys
    assert torch.equal(model(x), before)
