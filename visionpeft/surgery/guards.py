"""What must hold before a model or a weight is touched."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from visionpeft.algebra.method import Method
from visionpeft.errors import StateError, UserError
from visionpeft.surgery.hosts import base_class, is_called
from visionpeft.surgery.ledger import known_to
from visionpeft.surgery.mount import adapters, hosts
from visionpeft.surgery.quantized import in_full
from visionpeft.surgery.targets import Target


def check_model(model: nn.Module, name: str) -> None:
    """Raise :class:`StateError` for models that must be adapted before they are wrapped, or unmerged first."""
    if not isinstance(model, nn.Module):
        raise UserError(f"adapt: found {model!r}, but the model must be an nn.Module")
    for path, module in model.named_modules():
        if (state := _wrapped(module)) is not None:
            raise StateError(f"{path or 'the model'} is {state}")
    for path, host in hosts(model):
        if adapters(host).merged:
            raise StateError(f"{path or 'the model'} has merged adapters: call unmerge first")
        if any(adapter == name for adapter, _, _ in adapters(host).slots()):
            raise StateError(
                f"adapter {name!r} sits on {path or 'the model'!r} already: take another name, or remove it"
            )
    if name in known_to(model):
        raise StateError(f"the model has an adapter {name!r} already: take another name, or remove it")


def _wrapped(module: nn.Module) -> str | None:
    """What stands in the way of adapting a model with this module, and what to do instead."""
    kind = type(module).__name__
    if kind == "OptimizedModule" or module._compiled_call_impl is not None:
        return "compiled: adapt the model first, then compile it"
    if kind.startswith("FSDP") or kind == "FullyShardedDataParallel":
        return "sharded by FSDP: adapt the model first, then shard it"
    if isinstance(module, nn.parallel.DistributedDataParallel):  # it would not synchronise the factors
        return "wrapped in DistributedDataParallel: adapt the model first, then wrap it"
    if isinstance(module, torch.jit.ScriptModule):
        return "TorchScript: adapt the Python module it was made from"
    if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # pyright: ignore[reportAttributeAccessIssue]
        return "lazy and has no weight yet: run the model once, then adapt it"
    return None


def check_target(target: Target, method: Method, read: bool = False) -> str | None:
    """One sentence saying why this weight cannot be adapted so, or None.

    Args:
        read: whether an audit saw the weight read from outside its module.

    Raises:
        UserError: the weight holds NaN or infinite values.
    """
    if (reason := _unseen(target.module, target.parameter)) is not None:
        return reason
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
    if weight.device.type != "meta" and not bool(torch.isfinite(in_full(weight)).all()):
        raise UserError(f"{target.path!r} has NaN or infinite values in its weight; load a sound checkpoint")
    return method.refuse(target.site)


def _unseen(module: nn.Module, parameter: str) -> str | None:
    """Why a change of this parameter would not be seen, or would undo what its module does with it."""
    if module._parameters.get(parameter) is None:
        return "it is computed from other parameters (weight_norm, pruning, …); remove that reparametrisation first"
    if isinstance(module, nn.RNNBase):
        return "torch's recurrent layers run from a private list of their weights, where no adapter is seen"
    if isinstance(getattr(base_class(module), parameter, None), property):
        return f"its class {base_class(module).__name__} computes what is read as {parameter!r} itself"
    return None
