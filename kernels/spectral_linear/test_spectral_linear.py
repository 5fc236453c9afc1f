"""``spectral_linear`` against its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from visionpeft.kernels.spectral_linear import reference
from visionpeft.kernels.spectral_linear.cpu import spectral_linear

TRAINED = (0, 5, 6, 7)


def arguments(dtype: torch.dtype = torch.float64, lead: tuple = (2, 5), bias: bool = True) -> list[Tensor]:
    """x, weight, bias, U, V, gains, left, right."""
    g = torch.Generator().manual_seed(0)
    shapes = [(*lead, 6), (7, 6), (7,), (7, 5), (5, 6), (3,), (2, 4), (4, 2)]
    drawn = [torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in shapes]
    drawn[2] = drawn[2] if bias else torch.zeros_like(drawn[2])
    return [t.requires_grad_(i in TRAINED) for i, t in enumerate(drawn)]


def called(function, args: list[Tensor], scale: float = 0.7) -> Tensor:
    x, weight, bias, *spectrum = args
    return function(x, weight, bias if bias.any() else None, *spectrum, scale)


def results(function, args: list[Tensor], scale: float = 0.7) -> list[Tensor]:
    y = called(function, args, scale)
    gy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, [a for a in args if a.requires_grad], gy)]


@pytest.mark.parametrize("scale", [1.0, 0.7])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(), (5,), (2, 5), (2, 0), (2, 3, 4)])
def test_equals_the_definition(lead, bias, scale):
    ours, right = (
        results(f, arguments(lead=lead, bias=bias), scale) for f in (spectral_linear, reference.spectral_linear)
    )
    for a, b in zip(ours, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounds_no_worse_than_its_type(dtype):
    low = arguments(dtype)
    exact = results(reference.spectral_linear, [a.detach().double().requires_grad_(a.requires_grad) for a in low])
    for a, b in zip(results(spectral_linear, low), exact, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, rtol=0, atol=24 * torch.finfo(dtype).eps * b.abs().max().item())


def test_gradcheck_and_no_second_derivative():
    args = arguments(lead=(4,))
    assert torch.autograd.gradcheck(lambda *a: called(spectral_linear, list(a)), args)
    (gx,) = torch.autograd.grad(called(spectral_linear, args).pow(2).sum(), args[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gx.sum().backward()


@pytest.mark.parametrize("which", [1, 2, 3, 4])
def test_what_trains_after_all_gets_its_gradient(which):
    args = arguments()
    args[which].requires_grad_()
    for a, b in zip(results(spectral_linear, args), results(reference.spectral_linear, args), strict=True):
        torch.testing.assert_close(a, b)


def test_keeps_no_copy_behind_an_activation_and_no_responses():
    x, weight, _, *spectrum = arguments(lead=(50,))
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        spectral_linear(F.gelu(x), weight, None, *spectrum)
    assert set(kept) == {t.data_ptr() for t in (x, weight, *spectrum)}
