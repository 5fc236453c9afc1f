"""When the fused operations may run: plain tensors, evaluated now, by the ordinary autograd engine."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import Node
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
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return False
    return all(t is None or (type(t) in _PLAIN and not t.is_meta) for t in tensors)


def saved_by_torch_hooks(node: Node | None = None, field: str = "") -> bool:
    """Whether torch's own saved-tensor hooks (checkpointing, offloading) hold, or are about to hold, a saved tensor.

    With a node, the question is about its saved tensor ``field``; without, about tensors saved from now on. Reading
    a tensor held by such hooks would recompute a checkpointed region or copy it back from where it was moved to.
    """
    if node is None:
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
        hook = None if hooks is None else hooks[1]
    else:
        hook = getattr(node, f"_raw{field}").unpack_hook
    return hook is not None and getattr(hook, "__module__", "").startswith("torch.")
