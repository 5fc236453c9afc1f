"""What the frozen backbone can do without being adapted."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from visionpeft.errors import StateError, TargetError
from visionpeft.metrics import Predictions, nearest_centroid


def extract_features(
    model: nn.Module, head: str, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """What enters the module at path ``head``, flattened: CPU features ``(images, d)`` and labels ``(images,)``.

    Runs in eval mode without gradients and leaves the model's mode as it was. ``device=None`` is the model's own.

    Raises:
        StateError: no batch, or the head was never called.
        TargetError: ``head`` is no module of the model.
    """
    features, labels, seen = [], [], []
    device = device or next(model.parameters()).device
    training = {path: module.training for path, module in model.named_modules()}
    hook = _submodule(model, head).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        model.eval()
        with torch.inference_mode():
            for images, targets in batches:
                seen.clear()
                model(images.to(device))
                if not seen:
                    raise StateError(f"the head {head!r} was not called in a forward pass, so there are no features")
                features.append(seen[-1].flatten(1).float().cpu())
                labels.append(targets.cpu())
    finally:
        hook.remove()
        for path, module in model.named_modules():
            module.training = training[path]
    if not features:
        raise StateError("there are no images to take features of")
    return torch.cat(features), torch.cat(labels)


def nearest_centroid_predictions(
    model: nn.Module,
    head: str,
    shots: Iterable[tuple[Tensor, Tensor]],
    queries: Iterable[tuple[Tensor, Tensor]],
    classes: int,
) -> Predictions:
    """Zero-shot control: each query takes the class whose mean training feature is nearest by cosine.

    ``shots`` must come without augmentation, or the centroids are those of other images. The scores are cosine
    similarities, not logits; their calibration means nothing.
    """
    features, labels = extract_features(model, head, shots)
    query_features, query_labels = extract_features(model, head, queries)
    return Predictions(nearest_centroid(features, labels, query_features, classes), query_labels)


def _submodule(model: nn.Module, path: str) -> nn.Module:
    try:
        module = model.get_submodule(path)
    except AttributeError:
        raise TargetError(f"the model has no module {path!r}") from None
    if next(module.parameters(), None) is None:
        raise TargetError(f"the module {path or '(root)'!r} has no parameters to train")
    return module
