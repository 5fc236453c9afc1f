"""When the fused operations may run: plain tensors, evaluated now, by the ordinary autograd engine."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._C import _autograd, _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.autograd import forward_ad
from torch.nn import Parameter

_PLAIN = (Tensor, Parameter)


def usable(*tensors: Tensor | None) -> bool:
    """Whether the fused operations may take these tensors (None is skipped).

    False while compiling, exporting or tracing, inside a ``torch.func`` transform or a forward-mode level, and for
    tensor subclasses (DTensor, FakeTensor, …) and meta tensors: there, the same formula in ordinary operations is what
    the surrounding machinery understands.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if _functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return False
    return all(t is None or (type(t) in _PLAIN and not t.is_meta) for t in tensors)


def saved_by_torch_hooks(saved: Any = None) -> bool:
    """Whether torch's own saved-tensor hooks (checkpointing, offloading) hold, or are about to hold, a saved tensor.

    With ``saved`` (autograd's ``SavedTensor``), the question is about that one; without, about tensors saved from now
    on. Reading a tensor held by such hooks would recompute a checkpointed region or copy the tensor back from where
    it was moved to.
    """
    if saved is not None:
        hook = saved.unpack_hook
    else:
        hooks = _autograd._top_saved_tensors_default_hooks(True)
        hook = None if hooks is None else hooks[1]
    return hook is not None and getattr(hook, "__module__", "").startswith("torch.")


def ordinary_precision(like: Tensor) -> AbstractContextManager[object]:
    """Autocast off for what follows, on the device of ``like``: casting was settled before the function was entered."""
    kind = like.device.type
    if like.is_meta or not torch.is_autocast_enabled(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)
