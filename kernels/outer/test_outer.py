"""``outer`` against its definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from visionpeft.kernels.outer import reference
from visionpeft.kernels.outer.cpu import outer


def factors(sizes: tuple[int, ...], dtype: torch.dtype = torch.float64) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(n, 3, generator=g, dtype=torch.float64).to(dtype).requires_grad_() for n in sizes]


@pytest.mark.parametrize("sizes", [(5,), (5, 3), (5, 3, 2), (5, 3, 2, 4), (1, 1, 1)])
def test_equals_the_definition(sizes):
    ours, right = outer(factors(sizes)), reference.outer(factors(sizes))
    torch.testing.assert_close(ours, right)
    gy = torch.randn(right.shape, generator=torch.Generator().manual_seed(1), dtype=right.dtype)
    for function in (outer, reference.outer):
        assert function(factors(sizes)).shape == (3, *sizes)
    a, b = factors(sizes), factors(sizes)
    for mine, theirs in zip(
        torch.autograd.grad(outer(a), a, gy), torch.autograd.grad(reference.outer(b), b, gy), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_type(dtype):
    parts = factors((5, 3, 2), dtype)
    bank = outer(parts)
    assert bank.dtype == dtype
    assert all(g.dtype == dtype for g in torch.autograd.grad(bank.sum(), parts))


def test_gradcheck_and_no_second_derivative():
    parts = factors((4, 3, 2))
    assert torch.autograd.gradcheck(lambda *f: outer(f), parts)
    (g,) = torch.autograd.grad(outer(parts).pow(2).sum(), parts[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        g.sum().backward()


def test_keeps_the_factors_and_nothing_else():
    parts, kept = factors((5, 3, 2)), []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        outer(parts)
    assert kept == [p.data_ptr() for p in parts]


def test_ordinary_operations_under_transforms():
    parts = [p.detach() for p in factors((5, 3))]
    got = torch.func.grad(lambda a, b: outer([a, b]).pow(2).sum())(*parts)
    a = parts[0].clone().requires_grad_()
    torch.testing.assert_close(got, torch.autograd.grad(outer([a, parts[1]]).pow(2).sum(), a)[0])
    assert outer([p.to("meta") for p in parts]).is_meta
