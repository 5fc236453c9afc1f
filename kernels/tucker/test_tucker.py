"""``tucker`` against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from visionpeft.kernels.recompute import cpu as recompute
from visionpeft.kernels.tucker import reference
from visionpeft.kernels.tucker.cpu import tucker

SIZES = [(5,), (5, 3), (5, 3, 2), (5, 3, 2, 4), (1, 1, 1)]


def parts(sizes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """A core of three filters with ranks 2, 3, 4, …, and its factors."""
    g = torch.Generator().manual_seed(0)
    ranks = range(2, 2 + len(sizes))
    shapes = [(3, *ranks), *zip(sizes, ranks, strict=True)]
    return [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("whole", [False, True], ids=["all axes", "kernel left whole"])
@pytest.mark.parametrize("sizes", SIZES)
def test_equals_the_definition(sizes, whole):
    core, *factors = parts(sizes)
    factors = factors[:1] if whole else factors
    ours, right = tucker(core, factors), reference.tucker(core, factors)
    assert ours.shape == (3, sizes[0], *(core.shape[2:] if whole else sizes[1:]))
    torch.testing.assert_close(ours, right)
    gy = torch.randn(right.shape, generator=torch.Generator().manual_seed(1), dtype=right.dtype)
    mine, theirs = (torch.autograd.grad(y, [core, *factors], gy) for y in (ours, right))
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_type(dtype):
    core, *factors = parts((5, 3, 2), dtype)
    bank = tucker(core, factors)
    assert bank.dtype == dtype
    assert all(g.dtype == dtype for g in torch.autograd.grad(bank.sum(), [core, *factors]))


def test_gradcheck_and_no_second_derivative():
    core, *factors = parts((4, 3, 2))
    assert torch.autograd.gradcheck(lambda c, *f: tucker(c, f), (core, *factors))
    (g,) = torch.autograd.grad(tucker(core, factors).pow(2).sum(), [core], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_keeps_the_factors_and_nothing_else_and_can_be_made_again(monkeypatch):
    monkeypatch.setattr(recompute, "FEWEST", 0)
    (core, *factors), kept = parts((5, 3, 2)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        bank = tucker(core, factors)
    assert kept == [part.data_ptr() for part in (core, *factors)]
    recipe = recompute.source_of(bank)
    assert recipe is not None and torch.equal(recipe.made_from(recipe.tensors), bank)


def test_ordinary_operations_under_transforms():
    core, *factors = (part.detach() for part in parts((5, 3)))
    got = torch.func.grad(lambda c: tucker(c, factors).pow(2).sum())(core)
    again = core.clone().requires_grad_()
    torch.testing.assert_close(got, torch.autograd.grad(tucker(again, factors).pow(2).sum(), again)[0])
    assert tucker(core.to("meta"), [factor.to("meta") for factor in factors]).is_meta
