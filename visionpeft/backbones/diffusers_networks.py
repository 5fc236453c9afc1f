"""The networks of diffusers; the conditional U-Net's defaults are those of Stable Diffusion 1.5."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
from safetensors import SafetensorError

from visionpeft.backbones import diffusers_examples as examples
from visionpeft.backbones.build import build, local_weights, offline
from visionpeft.backbones.spec import Backbone, InputSpec, Request
from visionpeft.backbones.weights import check_finite
from visionpeft.errors import AdapterFileError, OptionError

_SIDE = 64  # of networks whose configuration leaves it open
_STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@dataclass(frozen=True)
class Network:
    """A class of diffusers: how it is configured, where its weights are published, what it is called with.

    ``example`` takes the model, the side of its input and a device.
    """

    defaults: dict[str, Any]
    subfolder: str | None
    example: Callable[[Any, int, str], dict[str, Any]]


NETWORKS = {
    "UNet2DConditionModel": Network(
        {
            "sample_size": 64,
            "in_channels": 4,
            "out_channels": 4,
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },
        "unet",
        examples.conditional_unet,
    ),
    "DiTTransformer2DModel": Network(
        {"num_attention_heads": 16, "attention_head_dim": 72, "num_layers": 28, "sample_size": 32, "out_channels": 8},
        None,
        examples.dit,
    ),
    "PixArtTransformer2DModel": Network({"caption_channels": 4096}, None, examples.pixart),
    "SD3Transformer2DModel": Network(
        {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536, "pos_embed_max_size": 192},
        None,
        examples.sd3,
    ),
    "FluxTransformer2DModel": Network({"guidance_embeds": True}, None, examples.flux),
    "UNet2DModel": Network({"sample_size": 64, "block_out_channels": (64, 128, 256, 256)}, None, examples.unet),
    "AutoencoderKL": Network(
        {
            "sample_size": 512,
            "block_out_channels": (128, 256, 512, 512),
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "layers_per_block": 2,
            "latent_channels": 4,
        },
        "vae",
        examples.autoencoder,
    ),
}
"""Class of diffusers → what is known of it."""


def load_network(request: Request) -> Backbone:
    """Build or load one network of :data:`NETWORKS`; the options go to its constructor.

    ``pretrained`` is a folder written by ``save_pretrained``, a file of weights, ``run:<name>``, or ``True`` for Stable
    Diffusion 1.5. ``image_size`` counts what the network takes: latents for all but pixel U-Nets and autoencoders.
    """
    name, pretrained, device = request.name, request.pretrained, request.device
    if request.num_classes is not None:
        raise OptionError(f"diffusers/{name} has no classifier: num_classes does not apply")
    network, kind = NETWORKS[name], getattr(diffusers, name)
    if pretrained is True or (isinstance(pretrained, str) and Path(pretrained).expanduser().is_dir()):
        model, note = _published(name, kind, network, pretrained)
        check_finite(model.state_dict(), note)
        model.to(device)
    else:
        sized = "sample_size" in inspect.signature(kind).parameters
        side = {"sample_size": request.image_size} if request.image_size and sized else {}
        model: Any = build(f"diffusers/{name}", kind, device, **{**network.defaults, **side, **request.options})
        note = local_weights(model, pretrained) if pretrained else "random weights"
    size, channels = request.image_size or model.config.get("sample_size") or _SIDE, model.config["in_channels"]
    spec = InputSpec(size, channels, mean=(0.5,) * channels, std=(0.5,) * channels)
    return Backbone(model, spec, (note,), lambda: network.example(model, size, device))


def _published(name: str, kind: Any, network: Network, pretrained: bool | str) -> tuple[Any, str]:
    """A model by diffusers' own reader: Stable Diffusion 1.5 from the hub, or a local folder."""
    if isinstance(pretrained, str):
        try:
            return kind.from_pretrained(Path(pretrained).expanduser(), use_safetensors=True), f"weights of {pretrained}"
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise AdapterFileError(f"{pretrained} is no whole diffusers/{name}: {error}") from error
    if network.subfolder is None:
        raise OptionError(f"diffusers/{name} has no published weights here: give pretrained a path or false")
    try:
        return kind.from_pretrained(_STABLE_DIFFUSION, subfolder=network.subfolder), f"weights of {_STABLE_DIFFUSION}"
    except (OSError, ValueError) as error:
        raise offline(f"diffusers/{name}", error) from error
