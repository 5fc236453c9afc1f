"""The block mount: residuals after tokens, after maps, and after the first of several outputs."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from cases import stir
from torch import Tensor, nn

import visionpeft as vp


class TokenBlock(nn.Module):
    def __init__(self, width: int = 8):
        super().__init__()
        self.up, self.down = nn.Linear(width, 16), nn.Linear(16, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu())


class PairBlock(TokenBlock):
    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        return super().forward(x), "untouched"


class MapBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


INPUTS = {"tokens": (TokenBlock, (2, 5, 8)), "maps": (MapBlock, (2, 8, 8, 8))}


def built(kind: str, **options) -> tuple[nn.Module, Tensor]:
    block, shape = INPUTS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(*[block() for _ in range(4)])
    vp.adapt(model, "adaptertune", generator=torch.Generator().manual_seed(1), rank=3, **options)
    return model, torch.randn(shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kind", INPUTS)
def test_the_start_the_end_and_disabling_are_the_base_to_the_bit(kind: str):
    model, x = built(kind)
    plain, _ = built(kind)
    vp.remove(plain)
    expected = plain(x)
    assert torch.equal(model(x), expected)
    stir(model)
    assert not torch.equal(model(x), expected)
    with vp.disable(model):
        assert torch.equal(model(x), expected)
    vp.remove(model)
    assert torch.equal(model(x), expected)
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]


@pytest.mark.parametrize("kind", INPUTS)
def test_saved_copied_and_pickled(kind: str, tmp_path):
    model, x = built(kind)
    stir(model)
    vp.save(model, tmp_path)
    base, _ = built(kind)
    vp.remove(base)
    for twin in (vp.load(base, tmp_path), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))


def test_maps_get_their_residual_on_the_channel_axis():
    model, x = built("maps")
    stir(model)
    moved = x.roll(1, dims=2)
    with torch.no_grad():
        inner = slice(3, -3)  # away from the padding, which does not move
        first = nn.Sequential(model[0])
        assert torch.allclose(first(moved)[:, :, inner], first(x).roll(1, dims=2)[:, :, inner], atol=1e-6)


def test_every_other_block_and_only_the_first_output():
    model, _ = built("tokens", every=2)
    assert [hasattr(block, "adapters") for block in model] == [False, True, False, True]
    pair = nn.Sequential(PairBlock())
    vp.adapt(pair, "adaptertune", targets=["0"], rank=3)
    stir(pair)
    y, word = pair(torch.ones(1, 5, 8))
    with vp.disable(pair):
        base, _ = pair(torch.ones(1, 5, 8))
    assert word == "untouched" and not torch.equal(y, base)


def test_gradients_reach_every_factor_and_checkpointing_keeps_them():
    model, x = built("tokens")
    stir(model)
    found = []
    for run in (model, lambda x: torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)):
        model.zero_grad()
        run(x).square().sum().backward()
        found.append({key: p.grad.clone() for key, p in vp.adapter_parameters(model).items()})
    assert all(gradient.abs().sum() > 0 for gradient in found[0].values())
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])
    assert all(p.grad is None for key, p in model.named_parameters() if ".adapters." not in key)
