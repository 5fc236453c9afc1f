"""The definition of the three convolutions: what ``torch.convolution`` and its autograd compute."""

from __future__ import annotations

import torch
from torch import Size, Tensor

from visionpeft.kernels.conv_onednn.geometry import ConvGeometry


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:
    """The convolution of ``x: (N, C, *spatial)`` with a weight in its stored layout."""
    return torch.convolution(x, weight, bias, *geometry.arguments)


def input_gradient(gy: Tensor, weight: Tensor, geometry: ConvGeometry, shape: Size) -> Tensor:
    """The gradient of the input, of ``shape``, from that of the output."""
    x = gy.new_zeros(shape, requires_grad=True)
    with torch.enable_grad():
        y = convolution(x, weight, None, geometry)
    return torch.autograd.grad(y, x, gy)[0]


def weight_gradient(gy: Tensor, x: Tensor, geometry: ConvGeometry, shape: Size) -> Tensor:
    """The gradient of the weight, of ``shape`` as stored, from that of the output."""
    weight = gy.new_zeros(shape, requires_grad=True)
    with torch.enable_grad():
        y = convolution(x, weight, None, geometry)
    return torch.autograd.grad(y, weight, gy)[0]
