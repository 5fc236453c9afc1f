"""``diffusers/<Pipeline>`` as a backbone: the denoiser is the network, the rest of the pipeline stands beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from visionpeft.backbones.diffusers_networks import NETWORKS, load_network
from visionpeft.backbones.pipelines.families import family_of
from visionpeft.backbones.pipelines.opening import open_pipeline
from visionpeft.backbones.pipelines.pipeline import Pipeline
from visionpeft.backbones.spec import Backbone, InputSpec, Request
from visionpeft.errors import AdapterFileError, OptionError


def load_pipeline(request: Request) -> Backbone:
    """Open a pipeline of the class ``request.name``.

    ``pretrained`` is a folder of ``save_pretrained``, a repository of the hub, ``run:<name>``, or ``True`` for the
    family's published weights. ``False`` builds the denoiser alone, as published or with the options of its class.
    ``image_size`` counts pixels.
    """
    family = family_of(request.name)
    if request.pretrained is False:
        return _denoiser_alone(request)
    source = family.published if request.pretrained is True else request.pretrained
    opened = open_pipeline(source, device=request.device)
    if request.options:
        name = next(iter(request.options))
        raise OptionError(f"options.{name}: how the pipeline of {source} is built is in its folder; leave options out")
    if (found := type(opened.pipe).__name__) not in family.pipelines:
        raise AdapterFileError(f"{source} holds a {found}: name the backbone diffusers/{found}")
    return backbone_of(opened, request.image_size, request.device)


def backbone_of(opened: Pipeline, image_size: int | None, device: str) -> Backbone:
    """A pipeline's denoiser as a backbone, for images of ``image_size`` pixels (default: as trained)."""
    family, pipe, model = opened.family, opened.pipe, opened.denoiser
    size = image_size or family.image_size(pipe)
    network, side = NETWORKS[type(model).__name__], size // family.reduction(pipe)
    return Backbone(model, input_of(size, opened), opened.notes, lambda: network.example(model, side, device), opened)


def input_of(size: int, opened: Pipeline | None = None) -> InputSpec:
    """Images in −1 … 1, of the channels that the pipeline's autoencoder or pixel network takes."""
    first: Any = None if opened is None else getattr(opened.pipe, "vae", None) or opened.denoiser
    channels = 3 if first is None else int(first.config["in_channels"])
    return InputSpec(size, channels, mean=(0.5,) * channels, std=(0.5,) * channels)


def _denoiser_alone(request: Request) -> Backbone:
    """The denoiser with random weights, for shapes and plans; a pipeline needs a source."""
    family = family_of(request.name)
    side = request.image_size and request.image_size // family.pixels_a_latent
    built = load_network(replace(request, name=family.needs[family.component][0], image_size=side))
    note = "the denoiser alone with random weights: a pipeline opens with pretrained"
    return replace(built, input=input_of(request.image_size or family.pixels), notes=(note,))
