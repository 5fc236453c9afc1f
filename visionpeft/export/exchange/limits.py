"""What each format can say, and why not the rest."""

from __future__ import annotations

from torch import nn

from visionpeft.algebra.site import ConvGeometry
from visionpeft.errors import OptionError, unknown
from visionpeft.export.exchange.changes import Change
from visionpeft.surgery.hosts import base_class

FORMS = {
    "diffusers-lora": "a file for `pipe.load_lora_weights` of diffusers, and for ComfyUI",
    "peft": "a folder for `PeftModel.from_pretrained` on the bare denoiser",
    "kohya": "a file with the names of kohya's sd-scripts, for web UIs and `pipe.load_lora_weights`",
    "lycoris": "a file for lycoris-lora's `create_lycoris_from_weights`: any change, exactly",
}
"""Format → what it is for."""

LAYERS = {
    "diffusers-lora": (nn.Linear, nn.Conv2d),
    "kohya": (nn.Linear, nn.Conv2d),
    "peft": (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding),
    "lycoris": (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
}
LOADED_BY_PEFT = ("diffusers-lora", "kohya", "peft")


def check_form(form: str) -> None:
    """Raise :class:`UnknownNameError` for a format that is not known."""
    if form not in FORMS:
        raise unknown("exchange format", form, FORMS)


def check_denoiser(form: str, model: nn.Module) -> None:
    """Whether plain tools can load this format into this network at all.

    Raises:
        OptionError: they cannot; the message says why and which format they can.
    """
    kind = base_class(model).__name__
    if form == "kohya" and kind != "UNet2DConditionModel":
        raise OptionError(
            f"--to kohya: kohya's names are those of Stable Diffusion's U-Nets; for a {kind} its scripts use the names "
            "of the network it was published as, which diffusers' has not. Take diffusers-lora, peft or lycoris"
        )
    if form == "diffusers-lora" and not hasattr(model, "load_lora_adapter"):
        raise OptionError(
            f"--to diffusers-lora: diffusers loads LoRA files into no {kind} (it has no load_lora_adapter, its "
            "pipeline no load_lora_weights). Take peft or lycoris"
        )


def why_not(form: str, model: nn.Module, change: Change) -> str | None:
    """One sentence saying why a format cannot say a change, or None."""
    module = model.get_submodule(change.module)
    layer, kinds = base_class(module), LAYERS[form]
    if change.parameter != "weight" or not issubclass(layer, (*kinds, nn.modules.conv._ConvNd, nn.Embedding)):
        return f"{form} knows layers only, and this is a parameter of {layer.__name__}"
    if not issubclass(layer, kinds):
        return f"{form} has no {layer.__name__}"
    if form == "lycoris" and issubclass(layer, nn.Linear) and layer is not nn.Linear:
        return f"lycoris takes {layer.__name__}, a subclass of Linear, for a quantised layer"
    return None if change.site.conv is None else _why_no_walk(form, change.site.conv)


def _why_no_walk(form: str, walk: ConvGeometry) -> str | None:
    if walk.mode != "constant":
        return f"{form} pads with zeros, this convolution by {walk.mode}"
    if form not in LOADED_BY_PEFT:
        return None
    if walk.groups > 1:
        return f"the first half of {form}'s convolutions sees all channels, this one has {walk.groups} groups"
    if any(step > 1 for step in walk.dilation):
        return f"{form}'s convolutions are not dilated, this one is by {walk.dilation}"
    return None
