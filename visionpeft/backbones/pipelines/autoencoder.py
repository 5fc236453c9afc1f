"""The autoencoder of a pipeline that is put together here: trained before, of a folder, or small and random."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from diffusers import AutoencoderKL
from safetensors import SafetensorError

from visionpeft.backbones.pipelines.folder import check_model
from visionpeft.backbones.weights import source_folder
from visionpeft.errors import AdapterFileError

_RANDOM = {
    "block_out_channels": (16, 32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
}


def open_autoencoder(source: str, size: int, device: str) -> AutoencoderKL:
    """The ``AutoencoderKL`` that ``source`` names.

    Args:
        source: ``run:<name>``, a folder of ``save_pretrained``, or ``"random"`` for one of 0.2 M weights, four pixels
            to a latent, that shows nothing but is quick to try things with.
        size: pixels a side, for a random one.
        device: where it goes.

    Raises:
        AdapterFileError: there is none, or it is damaged.
    """
    if source == "random":
        vae = AutoencoderKL(sample_size=size, **_RANDOM)
        return cast("Any", vae).to(device)
    if source.startswith("run:"):
        folder = source_folder(source.removeprefix("run:"), "config.json")
    else:
        folder = Path(source).expanduser()
    check_model(folder, "AutoencoderKL")
    try:
        vae = AutoencoderKL.from_pretrained(folder, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise AdapterFileError(f"{folder} is no whole AutoencoderKL: {error}") from error
    return cast("Any", vae).to(device)
