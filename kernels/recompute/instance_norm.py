"""Normalisation by the statistics of the batch or instance, computed again from what its autograd node holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node


def normalised(x: Tensor, eps: float, shape: torch.Size) -> Tensor:
    """``x: (1, channels, …)`` normalised channel by channel, without weight and bias, viewed in ``shape``."""
    return torch.native_batch_norm(x, None, None, None, None, True, 0.0, eps)[0].view(shape)


def normalisation_behind(view: Node) -> Any:
    """The node, one view up, of a normalisation by its own statistics without weight and bias; or None."""
    node: Any = view.next_functions[0][0]
    if type(node).__name__ != "NativeBatchNormBackward0" or not node._saved_training:
        return None
    return node if node._saved_weight is None and node.next_functions[2][0] is None else None


def has_no_bias(x: Tensor, mean: Tensor, scale: Tensor, output: Tensor) -> bool:
    """Whether one entry a channel is explained without a bias; the node does not say if a frozen one was given."""
    first = (slice(None), slice(None), *[0] * (x.dim() - 2))
    predicted = (x[first] - mean) * scale
    within = max(4 * torch.finfo(output.dtype).eps, 1e-4)
    return torch.allclose(predicted.to(output.dtype), output.view(x.shape)[first], rtol=within, atol=within)
