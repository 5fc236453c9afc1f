"""Merged weights: the adapter folded into the network's own weights, under the network's own key names."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visionpeft.backbones.weights import fit
from visionpeft.errors import StateError
from visionpeft.export.parity import Parity, compare
from visionpeft.recipe import Recipe, build_method
from visionpeft.runs.kinds import Stages, kind_of
from visionpeft.runs.stages import open_backbone
from visionpeft.runs.weights import read_weights, write_weights
from visionpeft.surgery.merge import merge, unmerge
from visionpeft.surgery.mount import hosts
from visionpeft.surgery.quantize import dequantize
from visionpeft.surgery.quantized import is_quantized


def why_not_mergeable(recipe: Recipe) -> str | None:
    """The reason a recipe's adapter cannot be folded into weights, or None."""
    for method, _ in recipe.adapters.values():
        if not build_method(method).mergeable:
            return f"{method.name} acts on activations and cannot be folded into weights; the adapter folder holds it"
    return None


def write_merged(path: Path, stages: Stages, recipe: Recipe, images: Tensor) -> Parity:
    """Merge the model, save it as safetensors, load the file into a fresh plain network and compare the logits.

    Args:
        path: the file to write.
        stages: adapted and trained; the model is merged only while its weights are read.
        recipe: says which plain network the file is for.
        images: ``(B, C, H, W)``, a real batch to compare on.

    Raises:
        StateError: the method cannot be merged.
        ParityError: the file does not say what the adapted model says; nothing is left at ``path``.
    """
    if reason := why_not_mergeable(recipe):
        raise StateError(reason)
    write_weights(path, merged_state(stages.task.model))
    kind = kind_of(recipe)
    try:
        plain = load_plain(path, recipe, stages)
        return compare(kind.answering(stages, stages.task.model), kind.answering(stages, plain), images, "merged")
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def load_plain(path: Path, recipe: Recipe, stages: Stages) -> nn.Module:
    """The recipe's plain network, in eval mode, with the weights of a merged file.

    Raises:
        UserError: the file is missing, damaged, or of another network.
    """
    plain = plain_network(recipe, stages)
    fit(plain, read_weights(path), str(path))
    return plain.eval()


def plain_network(recipe: Recipe, stages: Stages) -> nn.Module:
    """The architecture of a run's network without adapters, with random weights.

    A pipeline's folder, not its name, says what its denoiser is like, and that of diffusers knows it itself.
    """
    if stages.backbone.pipeline is None:
        return open_backbone(recipe, kind_of(recipe).outputs(stages.data), pretrained=False).model
    denoiser: Any = stages.task.model
    return getattr(type(denoiser), "base_class", type(denoiser)).from_config(denoiser.config)


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the merged weights under the plain network's keys; ``model`` itself stays adapted.

    A base in few bits is merged in full, with the values that it stands for.
    """
    if any(map(is_quantized, model.parameters())):
        model = copy.deepcopy(model)
        dequantize(model)
    adapted = any(hosts(model))
    if adapted:
        merge(model)
    try:
        return {name: value.clone() for name, value in model.state_dict().items() if ".adapters." not in f".{name}"}
    finally:
        if adapted:
            unmerge(model)
