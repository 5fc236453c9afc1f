"""What stays still in a frozen base, and what a checkpoint therefore has to hold."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from visionpeft.errors import StateError


def hold_batch_norm(model: nn.Module) -> None:
    """Put every BatchNorm whose own weights are frozen into eval mode.

    In training mode it would normalise by the batch and let its running statistics drift, which changes a base that is
    called frozen. BatchNorms with trainable weights are left as they are.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not _trains_itself(module):
            module.eval()


def moving_state(model: nn.Module) -> dict[str, Tensor]:
    """The part of ``model.state_dict()`` that training can change or that belongs to what is trained.

    That is every parameter that requires a gradient, and the buffers lying in the same module as one: running
    statistics of a trained BatchNorm, the frozen singular vectors beside SALT's factors.
    """
    owners = {path for path, module in model.named_modules() if _trains_itself(module)}
    trainable = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    buffers = {name for name, _ in model.named_buffers(remove_duplicate=False)}
    return {
        name: value
        for name, value in model.state_dict().items()
        if name in trainable or (name in buffers and name.rpartition(".")[0] in owners)
    }


def check_finite(model: nn.Module) -> None:
    """Raise :class:`StateError` naming the first weight or buffer that holds NaN or infinity."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            bad = int((~value.isfinite()).sum())
            raise StateError(f"the weight {name!r} holds {bad} NaN or infinite values: load sound weights")


def _trains_itself(module: nn.Module) -> bool:
    return any(p.requires_grad for p in module.parameters(recurse=False))
