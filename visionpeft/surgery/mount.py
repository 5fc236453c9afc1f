"""The mounts: a method put on a live module by swapping the module's class for a cached subclass.

One subclass serves every way a weight is used. Its ``forward`` runs the adapted operation where the host's forward is
torch's own, that of a layer or of attention (the call mount); its properties return W+ΔW to whoever reads the weight
from outside (the read mount: other uses of ``in_proj_weight``, a fused evaluation path that reads ``linear1.weight``,
timm's ``qkv`` with separate biases); and the output of a block is followed by its residual (the block mount). So a host
cannot be adapted in one use and silently not in another. Keys of the base do not change, and ``isinstance`` still
holds.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor, nn

from visionpeft.surgery.attention import PACKED, Call, run_attention
from visionpeft.surgery.execute import after_block, read_weight, run_layer
from visionpeft.surgery.hosts import is_called, sites_of
from visionpeft.surgery.slots import AdapterSet, Slot

_TEXT_FIRST = ("JointTransformerBlock", "FluxTransformerBlock", "FluxSingleTransformerBlock")
"""Blocks of diffusers that put out text and pictures, in this order; elsewhere the first output is passed on."""


def mount(module: nn.Module, name: str, piece: str, slot: Slot) -> None:
    """Put ``slot`` on ``module``; the class is swapped with the first one."""
    if not is_mounted(module):
        sites = sites_of(module)
        called = is_called(module)
        module.add_module("adapters", AdapterSet(sites))
        module.__class__ = adapted_class(type(module), tuple(sites), called)
    adapters(module).insert(name, piece, slot)


def unmount(module: nn.Module, name: str | None = None) -> None:
    """Take one adapter, or all, off ``module``; with the last one its class comes back."""
    bank = adapters(module)
    for adapter in list(bank._modules):
        if name in (None, adapter):
            del bank._modules[adapter]
    bank.plans.clear()
    if not bank._modules:
        module.__class__ = type(module).base_class  # pyright: ignore[reportAttributeAccessIssue]
        del module.adapters


def is_mounted(module: nn.Module) -> bool:
    return hasattr(type(module), "base_class")


def adapters(module: nn.Module) -> AdapterSet:
    """The adapters of a mounted module."""
    found = module._modules["adapters"]
    assert isinstance(found, AdapterSet)
    return found


def hosts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """(path, module) of every mounted module, each once."""
    return [(path, module) for path, module in model.named_modules() if is_mounted(module)]


@cache
def adapted_class(base: type[nn.Module], parameters: tuple[str, ...], called: bool) -> type[nn.Module]:
    """The subclass of ``base`` whose weights are read, and whose forward runs, adapted."""
    body: dict[str, Any] = {name: property(_reader(name)) for name in parameters}
    body |= {"base_class": base, "passes_on": int(base.__name__ in _TEXT_FIRST)}
    body |= {"__reduce_ex__": _reduce, "__module__": base.__module__, "__doc__": base.__doc__}
    if base.forward is nn.MultiheadAttention.forward and PACKED in parameters:
        body["forward"] = _attention_forward(base)
    else:
        body["forward"] = _layer_forward(base) if called and "weight" in parameters else _block_forward(base)
    return type(f"Adapted{base.__name__}", (base,), body)


def _reader(parameter: str):
    def read(self: nn.Module) -> Tensor | None:
        return read_weight(self, parameter)

    return read


def _layer_forward(base: type[nn.Module]):
    if issubclass(base, nn.modules.conv._ConvTransposeNd):

        def forward_sized(self: nn.Module, input: Tensor, output_size: list[int] | None = None) -> Any:
            return after_block(self, run_layer(self, input, output_size))

        return forward_sized

    def forward(self: nn.Module, input: Tensor) -> Any:
        return after_block(self, run_layer(self, input))

    return forward


def _attention_forward(base: type[nn.Module]):
    def forward(self: nn.Module, *args, **kwargs):
        return after_block(self, run_attention(self, base.forward, Call(*args, **kwargs)))

    return forward


def _block_forward(base: type[nn.Module]):
    def forward(self: nn.Module, *args, **kwargs):
        return after_block(self, base.forward(self, *args, **kwargs))

    return forward


def _reduce(self: nn.Module, protocol: int):
    """Pickle and deepcopy by the base class: the cached subclass is no module attribute."""
    cls = type(self)
    return _revive, (cls.base_class, tuple(adapters(self).sites), is_called(self)), self.__getstate__()  # pyright: ignore


def _revive(base: type[nn.Module], parameters: tuple[str, ...], called: bool) -> nn.Module:
    cls = adapted_class(base, parameters, called)
    return cls.__new__(cls)
