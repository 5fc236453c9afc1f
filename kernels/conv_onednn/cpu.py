"""Convolutions and their two gradients, with oneDNN where PyTorch leaves it.

For a 3D convolution of a small single volume in float32 on the CPU, PyTorch chooses its own unfold-and-multiply code,
five to twelve times slower than oneDNN, which it links anyway. Here oneDNN is called by name in those cases. oneDNN's
own weight gradient of a 3D convolution is slow too; it is taken plane by plane, as a 2D one whose batch is the depth.
Everything else (other devices, types and shapes) goes to ``aten`` unchanged.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Size, Tensor
from torch.autograd.function import once_differentiable

from visionpeft.kernels.conv_onednn.geometry import ConvGeometry, taps
from visionpeft.kernels.eager.guard import ordinary_precision

_aten = torch.ops.aten
_LEFT = ("Slow3d", "SlowDilated3d", "SlowTranspose3d")


def frozen_conv(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:
    """A convolution whose weight and bias do not train: unlike ``torch``'s, it keeps no activation for backward.

    Shapes as in :func:`convolution`. With a weight or bias that trains, the ordinary convolution runs.
    """
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        return torch.convolution(x, weight, bias, *geometry.arguments)
    return _FrozenConv.apply(x, weight, bias, geometry)


class _FrozenConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:
        ctx.geometry, ctx.shape = geometry, x.shape
        ctx.save_for_backward(weight)
        return convolution(x, weight, bias, geometry)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        with ordinary_precision(gy):
            return input_gradient(gy, weight, ctx.geometry, ctx.shape), None, None, None


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: ConvGeometry) -> Tensor:
    """The convolution of ``x: (N, C, *spatial)`` with a weight in its stored layout; no autograd of its own."""
    if not _onednn_pays(x, weight, geometry):
        return torch.convolution(x, weight, bias, *geometry.arguments)
    if geometry.transposed:
        return _adjoint(x, weight, bias, geometry.forward, geometry.output_padding or (0,) * geometry.axes)
    return _walk(x, weight, bias, geometry)


def input_gradient(gy: Tensor, weight: Tensor, geometry: ConvGeometry, shape: Size) -> Tensor:
    """The gradient of the input, of ``shape``, from that of the output."""
    walk = geometry.forward
    if _onednn_pays(gy, weight, replace(geometry, transposed=not geometry.transposed)):
        if geometry.transposed:
            return _walk(gy, weight, None, walk)
        return _adjoint(gy, weight, None, walk, walk.overhang(shape, gy.shape, weight.shape[2:]))
    if geometry.transposed:
        return torch.convolution(gy, weight, None, *walk.arguments)
    x = gy.new_empty(shape)  # only its shape is read; an expanded number would be written out in full
    return _aten.convolution_backward(gy, x, weight, None, *geometry.arguments, (True, False, False))[0]


def weight_gradient(gy: Tensor, x: Tensor, geometry: ConvGeometry, shape: Size) -> Tensor:
    """The gradient of the weight, of ``shape`` as stored, from that of the output."""
    if geometry.transposed:  # the adjoint swaps the roles of input and output
        gy, x, geometry = x, gy, geometry.forward
    if _planes_pay(gy, x, geometry, shape):
        return _weight_gradient_by_planes(gy, x, geometry, shape)
    weight = gy.new_empty(shape)
    return _aten.convolution_backward(gy, x, weight, None, *geometry.arguments, (False, True, False))[1]


def _onednn_pays(x: Tensor, weight: Tensor, geometry: ConvGeometry) -> bool:
    """Whether oneDNN could run this convolution and PyTorch would not let it."""
    if not _may_call_onednn(x, weight.shape[2:]):
        return False
    return torch._C._select_conv_backend(x, weight, None, *geometry.arguments).name in _LEFT


def _planes_pay(gy: Tensor, x: Tensor, geometry: ConvGeometry, shape: Size) -> bool:
    """Whether the weight gradient by planes beats PyTorch's: always its own code, and oneDNN's below AVX-512."""
    if not _may_call_onednn(x, shape[2:]) or geometry.groups > 1 or gy.shape[0] * gy.shape[2] == 1:
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return True
    weight = gy.new_empty(1).expand(shape)
    return torch._C._select_conv_backend(x, weight, None, *geometry.arguments).name in _LEFT


def _may_call_onednn(x: Tensor, kernel: Size) -> bool:
    plain = x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0
    return plain and len(kernel) == 3 and taps(kernel) > 1 and torch._C._get_mkldnn_enabled()


def _walk(x: Tensor, weight: Tensor, bias: Tensor | None, g: ConvGeometry) -> Tensor:
    return _aten.mkldnn_convolution(x, weight, bias, g.padding, g.stride, g.dilation, g.groups)


def _adjoint(x: Tensor, weight: Tensor, bias: Tensor | None, g: ConvGeometry, extra: tuple[int, ...]) -> Tensor:
    arguments = (g.padding, extra, g.stride, g.dilation, g.groups, "none", [], "")
    return torch.ops.mkldnn._convolution_transpose_pointwise(x, weight, bias, *arguments)


def _weight_gradient_by_planes(gy: Tensor, x: Tensor, g: ConvGeometry, shape: Size) -> Tensor:
    """Σ over depth of 2D weight gradients: for each depth tap one 2D gradient, its batch all planes at that offset."""
    depth, pad = gy.shape[2], g.padding[0]
    planes = F.pad(x, (0, 0, 0, 0, pad, pad)).transpose(1, 2).contiguous()
    gy = gy.transpose(1, 2).flatten(0, 1)
    flat = replace(g, stride=g.stride[1:], padding=g.padding[1:], dilation=g.dilation[1:])
    weight = gy.new_empty(*shape[:2], *shape[3:])
    out = gy.new_empty(shape)
    for tap in range(shape[2]):
        first = tap * g.dilation[0]
        seen = planes[:, first : first + g.stride[0] * (depth - 1) + 1 : g.stride[0]].flatten(0, 1)
        one = _aten.convolution_backward(gy, seen, weight, None, *flat.arguments, (False, True, False))[1]
        out[:, :, tap] = one
    return out
