"""How a convolution walks over its input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from torch import Size, Tensor


@dataclass(frozen=True)
class ConvGeometry:
    """One entry an axis, in the order of the kernel axes. Padding is symmetric and with zeros; others pad before.

    ``transposed`` marks ConvTransposeNd, whose weight is stored as ``(in, out/groups, *kernel)``.
    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool = False
    output_padding: tuple[int, ...] = ()
    groups: int = 1

    @property
    def axes(self) -> int:
        return len(self.stride)

    @property
    def forward(self) -> ConvGeometry:
        """The same walk from the fine grid to the coarse one: what a transposed convolution is the adjoint of."""
        return replace(self, transposed=False, output_padding=())

    @property
    def arguments(self) -> tuple:
        """What ``torch.convolution`` wants after the bias."""
        extra = self.output_padding or (0,) * self.axes
        return (self.stride, self.padding, self.dilation, self.transposed, extra, self.groups)

    def overhang(self, fine: Size, coarse: Size, kernel: Size) -> tuple[int, ...]:
        """The output padding with which the adjoint of this walk comes back from ``coarse`` to ``fine`` exactly."""
        walk = zip(fine[2:], coarse[2:], self.stride, self.padding, self.dilation, kernel, strict=True)
        return tuple(n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, s, p, d, k in walk)


def swap_grouped(weight: Tensor, groups: int) -> Tensor:
    """``(g·a, b, *k)`` → ``(g·b, a, *k)``: stored layout of a transposed convolution ↔ canonical. Its own inverse."""
    if groups == 1:
        return weight.transpose(0, 1)
    a, b = weight.shape[0] // groups, weight.shape[1]
    return weight.reshape(groups, a, b, *weight.shape[2:]).transpose(1, 2).reshape(groups * b, a, *weight.shape[2:])


def taps(kernel: Size) -> int:
    """Number of positions of a kernel."""
    return prod(kernel)
