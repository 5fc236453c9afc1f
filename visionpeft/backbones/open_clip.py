"""Any model of open_clip: an image tower, a text tower, and their projections into one space."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.transformer import QuickGELU
from torch import nn

from visionpeft.backbones.build import build, offline
from visionpeft.backbones.clip_config import CLIP_SMALL, config_of, is_custom, needs_transformers
from visionpeft.backbones.clip_small import load_towers
from visionpeft.backbones.clip_weights import fit_checkpoint, is_openai
from visionpeft.backbones.spec import Backbone, InputSpec, Request
from visionpeft.backbones.weights import check_finite, read_state, source_path
from visionpeft.errors import AdapterFileError, OptionError, UserError, did_you_mean


def load(request: Request) -> Backbone:
    """See :func:`visionpeft.backbones.load`; the options go to ``open_clip.create_model``.

    The name is one of open_clip's, ``clip-small`` (two real small towers of PyPI packages, for ``pretrained:
    package``), ``hf-hub:<repository>``, ``local-dir:<folder>``, or any name where the option ``config`` is the path of
    a model configuration (JSON). ``pretrained`` may also be a tag of open_clip such as ``"laion2b_s34b_b79k"``;
    ``True`` takes OpenAI's weights, or else the model's first tag. A file is a ``.safetensors`` or a ``.pt`` of a state
    dict, also inside open_clip's training checkpoints.
    """
    name, pretrained = request.name, request.pretrained
    if request.num_classes is not None:
        raise OptionError(f"open_clip/{name} has no classifier: num_classes does not apply")
    from_hub = pretrained is True and ":" in name
    tag = None if ":" in name else _tag(name, pretrained, request.options)
    model = _create(request, tag, from_hub)
    note = f"weights of open_clip/{name}" if from_hub else f"weights {tag!r} of open_clip/{name} from the hub"
    if tag or from_hub:
        check_finite(model.state_dict(), note)
    else:
        note = _local(model, name, pretrained)
    return Backbone(model, _input(model), (note,), lambda: _example(model, request))


def _tag(name: str, pretrained: bool | str, options: dict[str, Any]) -> str | None:
    """The tag of open_clip that is meant, or None for local weights and random ones."""
    config_of(name, options)  # an unknown name is an error before anything else
    tags = [] if is_custom(name, options) else open_clip.list_pretrained_tags_by_model(name)
    if isinstance(pretrained, str):
        if pretrained not in tags:
            _check_source(name, pretrained, tags)
        return pretrained if pretrained in tags else None
    if pretrained and not tags:
        hint = "'package' (towers of two packages) or 'run:clip-small'" if name == CLIP_SMALL else "a path or false"
        raise OptionError(f"open_clip/{name} has no published weights: give pretrained {hint}")
    return ("openai" if "openai" in tags else tags[0]) if pretrained else None


def _check_source(name: str, pretrained: str, tags: list[str]) -> None:
    """Refuse what is neither a tag nor a file before the network is built."""
    if pretrained == "package":
        if name != CLIP_SMALL:
            raise OptionError(f"pretrained 'package' exists for open_clip/{CLIP_SMALL} only, not for open_clip/{name}")
        return
    try:
        source_path(pretrained)
    except AdapterFileError as error:
        if pretrained.startswith("run:") or not tags:
            raise
        raise AdapterFileError(f"{error}, nor a tag of open_clip/{name}.{did_you_mean(pretrained, tags)}") from None


def _local(model: nn.Module, name: str, pretrained: bool | str) -> str:
    """Fill ``model`` from a package, a recipe's result or a file; returns the note."""
    if not isinstance(pretrained, str):
        _start_decoder(model)
        return "random weights"
    if pretrained == "package":
        return load_towers(model)
    path = source_path(pretrained)
    state = read_state(path)
    if is_openai(state) and not any(isinstance(module, QuickGELU) for module in model.modules()):
        raise UserError(
            f"{path} holds weights of OpenAI, made with QuickGELU: take open_clip/{name}-quickgelu, or give the option "
            "force_quick_gelu: true"
        )
    return fit_checkpoint(model, state, str(path))


def _start_decoder(model: nn.Module) -> None:
    """open_clip leaves the last projection of a CoCa's decoder to whatever the memory holds."""
    projection = getattr(getattr(model, "text_decoder", None), "text_projection", None)
    if isinstance(projection, nn.Parameter):
        nn.init.normal_(projection, std=len(projection) ** -0.5)


def _create(request: Request, tag: str | None, from_hub: bool) -> nn.Module:
    """The model on its device, with the hub's weights where a tag or a hub folder names them."""
    name, options = request.name, {"pretrained_text": False, **request.options}
    if request.image_size is not None:
        _check_size(name, request.image_size, options)
        options["force_image_size"] = request.image_size
    if tag is not None:  # OpenAI's weights want QuickGELU under any of the model's names
        quick = bool(open_clip.pretrained.get_pretrained_cfg(name, tag).get("quick_gelu"))
        options = {"force_quick_gelu": quick, **options}
    try:
        with quiet(), _source(name, options) as (source, known):
            chosen = {"pretrained": tag, "load_weights": tag is not None or from_hub, **known}
            model = build(f"open_clip/{name}", open_clip.create_model, request.device, source, **chosen)
    # A Hugging Face text tower asks the hub for its shape even without weights.
    except (OSError, RuntimeError) as error:
        if tag is not None or ":" in name:
            raise offline(f"open_clip/{name}", error) from error
        if not isinstance(error, OSError):
            raise
        tower = config_of(name, options).model["text_cfg"].get("hf_model_name")
        raise UserError(
            f"open_clip/{name}: even the shape of the text tower {tower!r} comes from the hub: {error}. Without "
            "internet give the option config, a file whose text_cfg.hf_model_name is a folder with a config.json"
        ) from error
    if request.device == "meta":
        _without_mask(model)
    return model


def _check_size(name: str, size: int, options: dict[str, Any]) -> None:
    """Refuse a size that open_clip's own image towers cannot cut into patches; timm's say it themselves."""
    vision = {} if ":" in name else config_of(name, options).model["vision_cfg"]
    if vision.get("timm_model_name"):
        return
    step = (
        32 if isinstance(vision.get("layers"), (list, tuple)) else vision.get("patch_size")
    )  # a ResNet halves 5 times
    if step and size % step:
        raise OptionError(f"image_size: {size} does not suit open_clip/{name}: give a multiple of {step} pixels")


def _without_mask(model: nn.Module) -> None:
    """Let a Hugging Face text tower run on shapes alone: making its attention mask looks at values."""
    tower: Any = getattr(getattr(model, "text", None), "transformer", None)
    if hasattr(tower, "set_attn_implementation"):
        from transformers import AttentionInterface
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        AttentionInterface.register("visionpeft_shapes", sdpa_attention_forward)  # no mask belongs to this name
        tower.set_attn_implementation("visionpeft_shapes")


@contextmanager
def _source(name: str, options: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What ``create_model`` is called with: a name, or a folder that holds a configuration of its own."""
    known = {key: value for key, value in options.items() if key != "config"}
    if ":" in name:
        yield name, known
        return
    config = config_of(name, options)
    needs_transformers(config)
    if not is_custom(name, options):
        yield name, known
        return
    with tempfile.TemporaryDirectory(prefix="visionpeft-") as folder:
        content = {"model_cfg": config.model, "preprocess_cfg": config.preprocess}
        (Path(folder) / "open_clip_config.json").write_text(json.dumps(content))
        yield f"local-dir:{folder}", known


@contextmanager
def quiet() -> Iterator[None]:
    """open_clip logs a warning for every model without weights; the notes of a backbone say it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _input(model: nn.Module) -> InputSpec:
    config: dict[str, Any] = open_clip.get_model_preprocess_cfg(model)
    size = config["size"]
    size = size if isinstance(size, int) else size[0]
    return InputSpec(size, 3, tuple(config["mean"]), tuple(config["std"]), config["interpolation"])


def _example(model: nn.Module, request: Request) -> dict[str, torch.Tensor]:
    """One image, and one text of the tower's full length that ends in its highest token, as OpenAI's does."""
    size, length = _input(model).size, _context_length(model, request)
    text = torch.ones(1, length, dtype=torch.long, device=request.device)
    text[:, -1] = int(getattr(model, "vocab_size", 2)) - 1
    return {"image": torch.zeros(1, 3, size, size, device=request.device), "text": text}


def _context_length(model: nn.Module, request: Request) -> int:
    if ":" not in request.name:
        chosen = config_of(request.name, request.options).model["text_cfg"].get("context_length")
        text = request.options.get("text_cfg", {})
        length = request.options.get("force_context_length") or text.get("context_length") or chosen
        if length is not None:
            return int(length)
    return int(getattr(model, "context_length", None) or 77)
