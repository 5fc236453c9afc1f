"""``synthesis`` against its definition."""

from __future__ import annotations

from itertools import product

import pytest
import pywt
import torch
from torch import Tensor

from visionpeft.kernels.recompute import cpu as recompute
from visionpeft.kernels.recompute.cpu import source_of
from visionpeft.kernels.wavelet import reference
from visionpeft.kernels.wavelet.cpu import synthesis

RANK = 3
CASES = list(product(("haar", "db2", "sym4"), (1, 2, 3), (8, 13, 16, 2), ("LLHH", "LHLH", "H", "LL"), (0, 1, 2)))


def arguments(case: tuple, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], tuple]:
    """Factors and the rest; the last entry of a case: the columns' side, the rows' side, and that with 3×2 taps."""
    name, levels, n, letters, side = case
    g, family = torch.Generator().manual_seed(0), pywt.Wavelet(name)  # pyright: ignore[reportAttributeAccessIssue]
    coarse = -(-n // 2**levels)
    sizes = [coarse if letter == "L" else (coarse << levels) - coarse for letter in letters]
    shapes = [(size, RANK) if side == 0 else (RANK, size, *((3, 2) if side == 2 else ())) for size in sizes]
    factors = [torch.randn(s, generator=g, dtype=torch.float64).to(dtype).requires_grad_() for s in shapes]
    return factors, (letters, tuple(family.rec_lo), tuple(family.rec_hi), levels, n, min(side, 1))


def results(function, case: tuple) -> list[Tensor]:
    factors, rest = arguments(case)
    y = function(factors, *rest)
    gy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad(y, factors, gy)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_definition(case):
    for ours, right in zip(results(synthesis, case), results(reference.synthesis, case), strict=True):
        torch.testing.assert_close(ours, right)


def test_agrees_with_pywavelets():
    factors, rest = arguments(("db2", 2, 16, "LH", 0))
    low, high = (f.detach().numpy() for f in factors)
    approximation = pywt.waverec([low, 0 * high[:4], 0 * high[4:]], "db2", "periodization", axis=0)
    details = pywt.waverec([0 * low, high[:4], high[4:]], "db2", "periodization", axis=0)
    right = torch.cat([torch.as_tensor(approximation), torch.as_tensor(details)], dim=1)
    torch.testing.assert_close(synthesis(factors, *rest).detach(), right)


@pytest.mark.parametrize("case", [("db2", 2, 13, "LHLH", 2), ("haar", 1, 8, "LLHH", 0)], ids=str)
def test_gradcheck_and_no_second_derivative(case):
    factors, rest = arguments(case)
    assert torch.autograd.gradcheck(lambda *f: synthesis(f, *rest), factors)
    (g,) = torch.autograd.grad(synthesis(factors, *rest).pow(2).sum(), factors[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_type(dtype):
    factors, rest = arguments(("sym4", 2, 13, "LH", 1), dtype)
    made = synthesis(factors, *rest)
    assert made.dtype == dtype
    assert all(g.dtype == dtype for g in torch.autograd.grad(made.sum(), factors))


def test_keeps_nothing_and_can_be_made_again(monkeypatch):
    monkeypatch.setattr(recompute, "FEWEST", 0)
    factors, rest = arguments(("db2", 2, 13, "LH", 0))
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        made = synthesis(factors, *rest)
    assert not kept
    recipe = source_of(made)
    assert recipe is not None
    with torch.no_grad():
        assert torch.equal(recipe.made_from(recipe.tensors), made)
    assert all(a is b for a, b in zip(recipe.tensors, factors, strict=True))
