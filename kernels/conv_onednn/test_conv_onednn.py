"""The three convolutions against PyTorch's own, where oneDNN is called by name and where it is not."""

from __future__ import annotations

import pytest
import torch

from visionpeft.kernels.conv_onednn import cpu, reference
from visionpeft.kernels.conv_onednn.geometry import ConvGeometry

CASES = [
    (ConvGeometry((s,) * 3, (p,) * 3, (d,) * 3, t, (s - 1,) * 3 if t else ()), k, batch)
    for s, p, d, t, k, batch in [
        (1, 1, 1, False, (3, 3, 3), 1),
        (2, 1, 1, False, (3, 3, 3), 1),
        (1, 2, 2, False, (3, 3, 3), 2),
        (2, 0, 1, False, (2, 2, 2), 1),
        (1, 0, 1, False, (1, 1, 3), 1),
        (1, 0, 1, False, (3, 1, 1), 1),
        (1, 0, 1, False, (1, 1, 1), 1),
        (2, 1, 1, True, (3, 3, 3), 1),
        (1, 1, 2, True, (3, 3, 3), 1),
        (2, 0, 1, True, (2, 2, 2), 2),
    ]
]


@pytest.mark.parametrize(("geometry", "kernel", "batch"), CASES, ids=str)
def test_all_three_equal_pytorch(geometry, kernel, batch):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 4, 9, 8, 7, generator=g)
    weight = torch.randn(*((4, 5) if geometry.transposed else (5, 4)), *kernel, generator=g)
    bias = torch.randn(5, generator=g)
    y = cpu.convolution(x, weight, bias, geometry)
    gy = torch.randn(y.shape, generator=g)
    pairs = [
        (y, reference.convolution(x, weight, bias, geometry)),
        (cpu.input_gradient(gy, weight, geometry, x.shape), reference.input_gradient(gy, weight, geometry, x.shape)),
        (cpu.weight_gradient(gy, x, geometry, weight.shape), reference.weight_gradient(gy, x, geometry, weight.shape)),
    ]
    for ours, right in pairs:
        torch.testing.assert_close(ours, right, rtol=0, atol=2e-6 * right.abs().max().item() + 1e-6)


def test_onednn_is_called_only_where_pytorch_leaves_it():
    same = ConvGeometry((1,) * 3, (1,) * 3, (1,) * 3)
    small, weight = torch.randn(1, 8, 6, 6, 6), torch.randn(8, 8, 3, 3, 3)
    assert cpu._onednn_pays(small, weight, same) == torch.backends.mkldnn.is_available()
    assert not cpu._onednn_pays(small.double(), weight.double(), same)
    assert not cpu._onednn_pays(small.expand(2, -1, -1, -1, -1), weight, same)  # PyTorch takes oneDNN itself
    assert not cpu._onednn_pays(small, weight[..., :1, :1, :1], same)
    with torch.backends.mkldnn.flags(enabled=False):
        assert not cpu._onednn_pays(small, weight, same)
        assert not cpu._planes_pay(small, small, same, weight.shape)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_frozen_convolution_keeps_no_activation(transposed):
    g = torch.Generator().manual_seed(0)
    geometry = ConvGeometry((2,) * 3, (1,) * 3, (1,) * 3, transposed)
    weight, x = torch.randn(4, 4, 3, 3, 3, generator=g), torch.randn(1, 4, 9, 8, 7, generator=g, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
        y = cpu.frozen_conv(x, weight, None, geometry)
    assert kept == [weight.shape]
    right = reference.convolution(x, weight, None, geometry)
    gy = torch.randn(y.shape, generator=g)
    torch.testing.assert_close(y, right, rtol=1e-5, atol=1e-5)
    ours, theirs = torch.autograd.grad(y, x, gy)[0], torch.autograd.grad(right, x, gy)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_convolution_that_trains_is_no_frozen_one():
    geometry = ConvGeometry((1,), (1,), (1,))
    weight = torch.randn(3, 2, 3, requires_grad=True)
    y = cpu.frozen_conv(torch.randn(1, 2, 5), weight, None, geometry)
    assert torch.autograd.grad(y.sum(), weight)[0].shape == weight.shape
