"""The networks that are timed: untrained, as time does not depend on the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionpeft.errors import OptionError, unknown


@dataclass(frozen=True)
class Net:
    """A network family: how to build it for a spatial size, and the input it takes (without the spatial axes)."""

    build: Callable[[int], nn.Module]
    batch: int
    channels: int
    axes: int
    size: int
    divisor: int


def _vit(name: str) -> Callable[[int], nn.Module]:
    def build(size: int) -> nn.Module:
        import timm

        return timm.create_model(name, img_size=size)

    return build


def _unet(size: int) -> nn.Module:
    from monai.networks.nets.unet import UNet

    return UNet(2, 1, 2, channels=(32, 64, 128, 256, 512), strides=(2, 2, 2, 2), num_res_units=2)


def _segresnet(size: int) -> nn.Module:
    from monai.networks.nets.segresnet import SegResNet

    return SegResNet(spatial_dims=3, init_filters=16, in_channels=1, out_channels=2)


def _dynunet(size: int) -> nn.Module:
    from monai.networks.nets.dynunet import DynUNet

    return DynUNet(3, 1, 2, kernel_size=[3] * 5, strides=[1, 2, 2, 2, 2], upsample_kernel_size=[2] * 4)


NETS = {
    "vit-tiny": Net(_vit("vit_tiny_patch16_224"), batch=8, channels=3, axes=2, size=96, divisor=16),
    "unet-2d": Net(_unet, batch=4, channels=1, axes=2, size=256, divisor=16),
    "segresnet-3d": Net(_segresnet, batch=1, channels=1, axes=3, size=32, divisor=8),
    "dynunet-3d": Net(_dynunet, batch=1, channels=1, axes=3, size=32, divisor=16),
    "vit-small": Net(_vit("vit_small_patch16_224"), batch=4, channels=3, axes=2, size=224, divisor=16),
}


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A network in training mode and an input, from ``"<family>@<size>"`` (the size may be left out).

    Raises:
        UnknownNameError: no such family.
        OptionError: the size is no positive multiple of what the network halves.
    """
    family, _, size = name.partition("@")
    if family not in NETS:
        raise unknown("network", family, NETS)
    net = NETS[family]
    if size and not (size.isdecimal() and int(size) and int(size) % net.divisor == 0):
        raise OptionError(f"{name}: the size is {size!r}, but it must be a positive multiple of {net.divisor}")
    extent = int(size or net.size)
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = net.build(extent).train()
    return model, torch.randn(net.batch, net.channels, *[extent] * net.axes, generator=generator)
