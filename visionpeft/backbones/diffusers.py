"""Everything by the name of diffusers: its networks alone, its pipelines whole, and two small pipelines of our own."""

from __future__ import annotations

from visionpeft.backbones.diffusers_networks import NETWORKS, load_network
from visionpeft.backbones.pipelines.backbone import load_pipeline
from visionpeft.backbones.pipelines.families import PIPELINES
from visionpeft.backbones.pipelines.small import SMALL, load_small
from visionpeft.backbones.spec import Backbone, Request
from visionpeft.errors import unknown


def load(request: Request) -> Backbone:
    """See :func:`visionpeft.backbones.load`.

    The name is a network of diffusers (``UNet2DConditionModel``), one of its pipelines (``StableDiffusionPipeline``),
    ``small-sd`` or ``small-dit``.
    """
    for names, load_one in ((NETWORKS, load_network), (PIPELINES, load_pipeline), (SMALL, load_small)):
        if request.name in names:
            return load_one(request)
    raise unknown("diffusers network", request.name, [*NETWORKS, *PIPELINES, *SMALL])
