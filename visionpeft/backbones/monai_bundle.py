"""A network by the path of its MONAI bundle: ``monai-bundle/<folder>``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from visionpeft.backbones import monai
from visionpeft.backbones.bundle import read_bundle
from visionpeft.backbones.spec import Backbone, Request


def load(request: Request) -> Backbone:
    """See :func:`visionpeft.backbones.load`: the bundle says which network it is and with which options.

    ``pretrained=True`` takes the bundle's weights; a path takes others for the same network.
    """
    folder = Path(request.name).expanduser()
    bundle = read_bundle(folder)
    if request.pretrained is True:
        return monai.load(replace(request, name=bundle.network, pretrained=str(folder)))
    return monai.load(replace(request, name=bundle.network, options={**bundle.options, **request.options}))
