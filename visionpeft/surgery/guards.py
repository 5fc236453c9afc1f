"""What must hold before a model or a weight is touched."""

from __future__ import annotations

import torch
from torch import nn

from visionpeft.algebra.method import Method
from visionpeft.errors import StateError, UserError
from visionpeft.surgery.hosts import is_called
from visionpeft.surgery.mount import adapters, hosts
from visionpeft.surgery.targets import Target


def check_model(model: nn.Module, name: str) -> None:
    """Raise :class:`StateError` for models that must be adapted before they are wrapped, or unmerged first."""
    for path, module in model.named_modules():
        kind = type(module).__name__
        if kind == "OptimizedModule":
            raise StateError(f"{path or 'the model'} is compiled: adapt the model first, then call torch.compile")
        if kind.startswith("FSDP") or kind == "FullyShardedDataParallel":
            raise StateError(f"{path or 'the model'} is sharded by FSDP: adapt the model first, then shard it")
        if isinstance(module, torch.jit.ScriptModule):
            raise StateError(f"{path or 'the model'} is TorchScript: adapt the Python module it was made from")
    for path, host in hosts(model):
        if adapters(host).merged:
            raise StateError(f"{path or 'the model'} has merged adapters: call unmerge first")
        if any(adapter == name for adapter, _, _ in adapters(host).slots()):
            raise StateError(
                f"adapter {name!r} sits on {path or 'the model'!r} already: take another name, or remove it"
            )
    if name in model.__dict__.get("_visionpeft", {}):
        raise StateError(f"the model has an adapter {name!r} already: take another name, or remove it")


def check_target(target: Target, method: Method, read: bool = False) -> str | None:
    """One sentence saying why this weight cannot be adapted so, or None.

    Args:
        read: whether an audit saw the weight read from outside its module.

    Raises:
        UserError: the weight holds NaN or infinite values.
    """
    weight = target.module._parameters[target.parameter]
    assert weight is not None
    if type(weight.data).__name__ == "DTensor":
        raise StateError(f"{target.path!r} is sharded by FSDP: adapt the model first, then shard it")
    if not weight.is_floating_point():
        return f"its weight is {str(weight.dtype).removeprefix('torch.')}, not floating point"
    called = target.parameter == "weight" and is_called(target.module) and not read
    if not method.mergeable and not called:
        return f"its weight is read, not called, and {method.name} with these options is no change of a weight"
    if getattr(target.module, "max_norm", None) is not None:
        return "an Embedding with max_norm rewrites its own weight in forward"
    if weight.device.type != "meta" and not bool(torch.isfinite(weight).all()):
        raise UserError(f"{target.path!r} has NaN or infinite values in its weight; load a sound checkpoint")
    return method.refuse(target.site)
