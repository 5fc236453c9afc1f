"""The weights of a whole timm model for an encoder made of it: fewer layers, other channels, another image size."""

from __future__ import annotations

import sys
from typing import Any

import torch.nn.functional as F
from timm.layers.pos_embed import resample_abs_pos_embed_nhwc
from timm.models import adapt_input_conv
from torch import Tensor, nn

from visionpeft.backbones.weights import State, fit
from visionpeft.errors import AdapterFileError


def fit_encoder(encoder: nn.Module, whole: Any, state: State, origin: str) -> str:
    """Load the weights of the timm model ``whole`` (it may be on ``"meta"``) into ``encoder``, a part of it.

    Every tensor of the encoder must be in ``state``. A first convolution of other channels is converted as timm does
    it, and position tables are resampled to the encoder's image size.

    Returns:
        A note that says how much was loaded and which modules of ``whole`` the encoder has no use for.

    Raises:
        AdapterFileError: ``state`` is of another architecture, or a tensor holds NaN.
    """
    own, names = encoder.state_dict(), _names(encoder, whole)
    if not set(names.values()) <= state.keys():
        convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
        state = convert(state, whole) if convert else state
    shapes = {names[key]: value for key, value in own.items()}
    fitting = {key: _resized(key, value, shapes.get(key), whole) for key, value in state.items()}
    known = whole.state_dict()
    renamed = {key: fitting.pop(name) for key, name in names.items() if name in fitting}
    unused = sorted({key.rpartition(".")[0] for key in fitting if key in known})
    foreign = {key: value for key, value in fitting.items() if key not in known}
    if not renamed:
        raise AdapterFileError(f"{origin} holds nothing of the encoder {type(whole).__name__}")
    note = fit(encoder, {**renamed, **foreign}, origin)
    return f"encoder: {note}" + (f"; no part of the encoder: {', '.join(unused)}" if unused else "")


def _names(encoder: nn.Module, whole: nn.Module) -> dict[str, str]:
    """Name of each tensor of the encoder → its name in the whole model; timm flattens lists and wraps getters."""
    known = whole.state_dict().keys()
    flat = {name.replace(".", "_", 1): name for name in known}
    short = {key: key.removeprefix("model.") for key in encoder.state_dict()}
    return {key: name if name in known else flat.get(name, name) for key, name in short.items()}


def _resized(key: str, value: Tensor, wanted: Tensor | None, whole: Any) -> Tensor:
    """Convert what depends on the image: tables of positions (SAM's; others timm resamples itself), input channels."""
    if wanted is None or value.shape == wanted.shape:
        return value
    if key.endswith(("rel_pos_h", "rel_pos_w")):
        return F.interpolate(value.T[None], size=len(wanted), mode="linear")[0].T.contiguous()
    if key.endswith("pos_embed") and value.ndim == 4:
        return resample_abs_pos_embed_nhwc(value, list(wanted.shape[1:3]))
    if key == f"{whole.pretrained_cfg.get('first_conv')}.weight" and value.shape[0] == wanted.shape[0]:
        return adapt_input_conv(wanted.shape[1], value)
    return value
