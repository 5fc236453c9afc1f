"""The networks that are timed: untrained, as time does not depend on the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from visionpeft.errors import OptionError, unknown


@dataclass(frozen=True)
class Net:
    """A network family: how to build it for a size, and the input it takes.

    Args:
        build: makes the network for a size.
        batch, channels, axes: of the input.
        size: what stands behind the ``@`` where nothing does: the extent of every spatial axis, unless ``extent`` is
            given.
        divisor: what the size must be a multiple of.
        extent: the extent of the spatial axes of a network whose size is something else.
        targets: what is adapted; None means every Linear and convolution.
        others: who else takes part, where installed.
    """

    build: Callable[[int], nn.Module]
    batch: int
    channels: int
    axes: int
    size: int
    divisor: int
    extent: int | None = None
    targets: tuple[str, ...] | None = None
    others: tuple[str, ...] = ("HF PEFT lora", "LyCORIS locon")


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


def _clip(classes: int) -> nn.Module:
    """CLIP ViT-B-16 as a classifier by texts of 16 tokens without padding, so that nobody can cut them."""
    from open_clip import get_model_config
    from open_clip.model import CLIP

    from visionpeft.tasks.clip.logits import ClipClassifier

    clip = CLIP(**(get_model_config("ViT-B-16") or {}))
    tokens = torch.randint(1, clip.vocab_size - 1, (classes, 1, 16))
    tokens[..., -1] = clip.vocab_size - 1
    return ClipClassifier(clip, tokens)


class Denoising(nn.Module):
    """A conditional U-Net as a function of latents alone; time and text are always the same.

    Args:
        unet: a ``UNet2DConditionModel``.
        text: ``(B, tokens, width)``.
    """

    def __init__(self, unet: nn.Module, text: Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("text", text, persistent=False)
        self.register_buffer("time", torch.arange(len(text)) * 100, persistent=False)

    def forward(self, latents: Tensor) -> Tensor:
        return self.unet(latents, self.time, self.text).sample


def _denoiser(size: int) -> nn.Module:
    """Stable Diffusion's U-Net, of about 10 million weights, with 16 tokens of text of width 384."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=size,
        block_out_channels=(64, 128, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=384,
    )
    return Denoising(unet, torch.randn(4, 16, 384))


NETS = {
    "vit-tiny": Net(_vit("vit_tiny_patch16_224"), batch=8, channels=3, axes=2, size=96, divisor=16),
    "unet-2d": Net(_unet, batch=4, channels=1, axes=2, size=256, divisor=16),
    "segresnet-3d": Net(_segresnet, batch=1, channels=1, axes=3, size=32, divisor=8),
    "dynunet-3d": Net(_dynunet, batch=1, channels=1, axes=3, size=32, divisor=16),
    "vit-small": Net(_vit("vit_small_patch16_224"), batch=4, channels=3, axes=2, size=224, divisor=16),
    "diffusion-unet": Net(
        *(_denoiser, 4, 4, 2, 16, 4),
        others=("HF PEFT lora in diffusers", "LyCORIS locon"),
    ),
    "clip-vit-b-16": Net(
        *(_clip, 4, 3, 2, 100, 1),
        extent=224,
        targets=("attn.qkv[q,k,v]",),
        others=("lora, dropout .25", "CLIP-LoRA", "CLIP-LoRA, dropout .25", "HF PEFT lora on attention"),
    ),
}
DEFAULT_NETS = tuple(name for name in NETS if name != "clip-vit-b-16")
"""All but the largest: each contestant holds a model of its own."""


def family(name: str) -> Net:
    """The family of ``"<family>@<size>"``.

    Raises:
        UnknownNameError: no such family.
    """
    found = name.partition("@")[0]
    if found not in NETS:
        raise unknown("network", found, NETS)
    return NETS[found]


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A network in training mode and an input, from ``"<family>@<size>"`` (the size may be left out).

    Raises:
        UnknownNameError: no such family.
        OptionError: the size is no positive multiple of what the network halves.
    """
    net, size = family(name), name.partition("@")[2]
    if size and not (size.isdecimal() and int(size) and int(size) % net.divisor == 0):
        raise OptionError(f"{name}: the size is {size!r}, but it must be a positive multiple of {net.divisor}")
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = net.build(int(size or net.size)).train()
    extent = net.extent or int(size or net.size)
    return model, torch.randn(net.batch, net.channels, *[extent] * net.axes, generator=generator)
