"""Any model of open_clip: an image tower, a text tower, and their projections into one space."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from torch import nn

from visionpeft.backbones.build import build, local_weights, offline
from visionpeft.backbones.spec import Backbone, InputSpec, Request
from visionpeft.errors import OptionError, unknown


def load(request: Request) -> Backbone:
    """See :func:`visionpeft.backbones.load`; the options go to ``open_clip.create_model``.

    ``pretrained`` may also be a tag of open_clip such as ``"laion2b_s34b_b79k"``; ``True`` takes OpenAI's weights, or
    else the model's first tag.
    """
    name, pretrained = request.name, request.pretrained
    if name not in open_clip.list_models():
        raise unknown("open_clip model", name, open_clip.list_models())
    if request.num_classes is not None:
        raise OptionError(f"open_clip/{name} has no classifier: num_classes does not apply")
    tag = _tag(name, pretrained)
    model = _create(request, tag)
    if tag:
        note = f"weights {tag!r} of open_clip/{name} from the hub"
    else:
        note = local_weights(model, pretrained) if isinstance(pretrained, str) else "random weights"
    return Backbone(model, _input(model), (note,), lambda: _example(model, request.device))


def _tag(name: str, pretrained: bool | str) -> str | None:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if isinstance(pretrained, str):
        return pretrained if pretrained in tags else None
    if pretrained and not tags:
        raise OptionError(f"open_clip/{name} has no published weights: give pretrained a path or false")
    return ("openai" if "openai" in tags else tags[0]) if pretrained else None


def _create(request: Request, tag: str | None) -> nn.Module:
    name = request.name
    size = {} if request.image_size is None else {"force_image_size": request.image_size}
    options = {**size, **request.options}
    try:
        return build(f"open_clip/{name}", open_clip.create_model, request.device, name, pretrained=tag, **options)
    except (
        OSError,
        RuntimeError,
    ) as error:  # a Hugging Face text tower asks the hub for its shape even without weights
        if tag is None and not isinstance(error, OSError):
            raise
        raise offline(f"open_clip/{name}", error) from error


def _input(model: nn.Module) -> InputSpec:
    config: dict[str, Any] = open_clip.get_model_preprocess_cfg(model)
    size = config["size"]
    size = size if isinstance(size, int) else size[0]
    return InputSpec(size, 3, tuple(config["mean"]), tuple(config["std"]), config["interpolation"])


def _example(model: nn.Module, device: str) -> dict[str, torch.Tensor]:
    size, length = _input(model).size, int(getattr(model, "context_length", None) or 77)
    image = torch.zeros(1, 3, size, size, device=device)
    return {"image": image, "text": torch.zeros(1, length, dtype=torch.long, device=device)}
