"""Autoencoding as a LightningModule: pictures to latents and back, measured by how close they come back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from visionpeft.errors import OptionError
from visionpeft.metrics.reconstruction import psnr, ssim
from visionpeft.tasks.base import Prepare, Task
from visionpeft.tasks.optimize import OptimizerOptions


@dataclass(frozen=True)
class AutoencodeOptions:
    """The loss, and what of a picture a step sees.

    Args:
        crop: pixels a side of random crops in training; None takes whole pictures. The network has to be fully
            convolutional, so that what it learns on crops holds for whole pictures.
        kl: weight of the divergence of the posterior from unit Gaussians, in nats a latent number.
        edges: weight of the absolute error of differences of neighbouring pixels, beside that of the pixels.
        recolour: share of training pictures with other colours, see :func:`recoloured`; pictures on white alone teach
            an autoencoder to make every light ground white.
        start_noise: standard deviation of the posterior at the start of a network with random weights, which drowns
            what little its latents say otherwise; None leaves it as it is.
        channels_last: memory format of weights and images.
    """

    crop: int | None = None
    kl: float = 1e-4
    edges: float = 0.0
    recolour: float = 0.0
    start_noise: float | None = None
    channels_last: bool = False


@dataclass(frozen=True)
class Rebuilt:
    """How close test pictures came back.

    Attributes:
        positions: int64 ``(N,)``, in the data's table.
        psnr: ``(N,)`` in dB.
        ssim: ``(N,)``.
    """

    positions: Tensor
    psnr: Tensor
    ssim: Tensor


class AutoencodeTask(Task):
    """Trains whatever requires a gradient in an ``AutoencoderKL`` by absolute error and a little divergence.

    Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, CVPR 2022, without its perceptual and
    adversarial terms, which need a second network.

    Args:
        model: an ``AutoencoderKL`` of diffusers.
        prepare, optimizer, seed: see :class:`visionpeft.tasks.base.Task`.
        options: see :class:`AutoencodeOptions`.

    Batches are ``(images (B, C, H, W) in -1 … 1, positions (B,))``. Logs ``train/loss`` each step, and ``val/psnr``
    and ``val/ssim`` each validation; after ``trainer.test`` :attr:`rebuilt` holds them of every test picture.

    Raises:
        OptionError: crops or pictures cannot be halved as often as the network does.
        StateError: see :class:`visionpeft.tasks.base.Task`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        prepare: Prepare | None = None,
        optimizer: OptimizerOptions | None = None,
        options: AutoencodeOptions | None = None,
        seed: int = 0,
    ) -> None:
        self.options = options or AutoencodeOptions()
        last = self.options.channels_last
        super().__init__(model, prepare=prepare, optimizer=optimizer, channels_last=last, seed=seed)
        if self.options.crop is not None:
            _check_side("task.crop", self.options.crop, self.factor)
        self.rebuilt: Rebuilt | None = None
        self._measured: list[tuple[Tensor, Tensor, Tensor]] = []

    def configure_model(self) -> None:
        if not self._is_prepared and self.options.start_noise is not None:
            _set_noise(self.model.quant_conv, self.options.start_noise)  # pyright: ignore[reportArgumentType]
        super().configure_model()

    @property
    def factor(self) -> int:
        """Pixels of a side that one latent stands for."""
        return 2 ** (len(self.model.config["block_out_channels"]) - 1)  # pyright: ignore

    def forward(self, images: Tensor) -> Tensor:
        """What comes back of ``images`` by the mode of the posterior, in the same shape and not clamped."""
        _check_side("the side of the pictures", images.shape[-1], self.factor)
        return self.model(self._laid_out(images)).sample

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, model = self._laid_out(recoloured(self._cropped(batch[0]), self.options.recolour)), self.model
        posterior: Any = model.encode(images).latent_dist  # pyright: ignore[reportCallIssue]
        found = model.decode(posterior.sample()).sample  # pyright: ignore[reportCallIssue]
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        return self.log_training(self._error(found - images) + self.options.kl * divergence)

    def _cropped(self, images: Tensor) -> Tensor:
        """A random square of every picture."""
        crop = self.options.crop
        if crop is None or crop >= images.shape[-1]:
            return images
        corners = torch.randint(images.shape[-1] - crop + 1, (len(images), 2)).tolist()
        squares = [image[:, y : y + crop, x : x + crop] for image, (y, x) in zip(images, corners, strict=True)]
        return torch.stack(squares)

    def _error(self, difference: Tensor) -> Tensor:
        pixels = difference.abs().mean()
        if not self.options.edges:
            return pixels
        return pixels + self.options.edges * sum(difference.diff(dim=axis).abs().mean() for axis in (-1, -2))

    def on_validation_epoch_start(self) -> None:
        self._measured = []

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._measure(batch)

    def on_validation_epoch_end(self) -> None:
        found = self._together()
        self.log("val/psnr", found.psnr.mean(), sync_dist=True)
        self.log("val/ssim", found.ssim.mean(), sync_dist=True)

    def on_test_epoch_start(self) -> None:
        self._measured = []

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._measure(batch)

    def on_test_epoch_end(self) -> None:
        self.rebuilt = self._together()

    def _measure(self, batch: tuple[Tensor, Tensor]) -> None:
        images, positions = batch
        found, wanted = _shown(self(images)), _shown(images)
        self._measured.append((positions, psnr(found, wanted), ssim(found, wanted)))

    def _together(self) -> Rebuilt:
        return Rebuilt(*(torch.cat(parts).cpu() for parts in zip(*self._measured, strict=True)))


def recoloured(images: Tensor, share: float) -> Tensor:
    """Images with every channel of a random ``share`` of them inverted or not, narrowed to half at most, and shifted.

    Args:
        images: ``(B, C, H, W)`` in -1 … 1, and so is what comes back.
        share: 0 returns the images as they are.
    """
    if not share:
        return images
    per_channel = (*images.shape[:2], 1, 1)
    width = torch.rand(per_channel, device=images.device) / 2 + 0.5
    sign = torch.randint(2, per_channel, device=images.device) * 2 - 1
    shift = (torch.rand(per_channel, device=images.device) * 2 - 1) * (1 - width)
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < share
    return torch.where(chosen, sign * width * images + shift, images)


@torch.no_grad()
def _set_noise(moments: nn.Conv2d, deviation: float) -> None:
    """Make the layer's second half of channels, the logarithms of the variances, say ``deviation`` everywhere."""
    half = moments.out_channels // 2
    moments.weight[half:] = 0
    assert moments.bias is not None, "as diffusers builds it"
    moments.bias[half:] = 2 * math.log(deviation)


def _shown(images: Tensor) -> Tensor:
    """From -1 … 1 to 0 … 1, as a screen shows them."""
    return (images.float() / 2 + 0.5).clamp(0, 1)


def _check_side(name: str, side: int, factor: int) -> None:
    if side % factor:
        raise OptionError(f"{name} is {side} pixels; this autoencoder needs a multiple of {factor}")
