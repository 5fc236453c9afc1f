"""Which parameters train: factors, and modules trained whole beside them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from visionpeft.errors import TargetError, did_you_mean
from visionpeft.surgery.fingerprint import base_parameters
from visionpeft.surgery.ledger import known_to
from visionpeft.surgery.mount import adapters, hosts
from visionpeft.surgery.quantized import is_quantized
from visionpeft.surgery.roles import ROLES, is_norm
from visionpeft.surgery.slots import FactorModule
from visionpeft.surgery.targets import Pattern, weights_of


def freeze_base(model: nn.Module) -> frozenset[str]:
    """Freeze every base parameter, and return the names of those that trained before any adapter came.

    With an adapter there already, what trains beside it was chosen then and stays.
    """
    for known in known_to(model).values():
        return known.thawed
    parameters = base_parameters(model)
    thawed = frozenset(name for name, parameter in parameters.items() if parameter.requires_grad)
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    return thawed


def thaw(model: nn.Module, names: frozenset[str]) -> None:
    """Undo :func:`freeze_base`: only the named base parameters train."""
    for name, parameter in base_parameters(model).items():
        if parameter.is_floating_point():
            parameter.requires_grad_(name in names)


def train_whole(modules: list[nn.Module]) -> None:
    """Set modules to train, whole."""
    for module in modules:
        for parameter in module.parameters():
            parameter.requires_grad_(parameter.is_floating_point())


def check_whole(modules: list[nn.Module]) -> None:
    """Raise TargetError where a module that shall train whole holds weights in few bits."""
    for module in modules:
        if any(is_quantized(parameter) for parameter in module.parameters()):
            raise TargetError(
                f"a {type(module).__name__} that shall train whole holds weights in few bits, which cannot train: "
                "leave it out of quantize(targets=…), or call dequantize first"
            )


def train_only(model: nn.Module, patterns: Iterable[str]) -> None:
    """Freeze ``model`` but for the modules that the patterns name (``""`` is the whole model: full fine-tuning).

    Raises:
        TargetError: a pattern names no module, or only such as hold no parameter.
    """
    chosen = {pattern: modules_named(model, pattern) for pattern in patterns}
    for pattern, modules in chosen.items():
        if not any(True for module in modules for _ in module.parameters()):
            raise TargetError(f"{pattern!r} holds no parameter that could train")
        check_whole(modules)
    model.requires_grad_(False)
    train_whole([module for modules in chosen.values() for module in modules])


def modules_named(model: nn.Module, text: str) -> list[nn.Module]:
    """The modules a pattern names.

    Raises:
        TargetError: none.
    """
    modules = {path: m for path, m in model.named_modules() if not isinstance(m, FactorModule)}
    if text in modules:
        return [modules[text]]
    pattern = Pattern.parse(text)
    if pattern.body == "norm":
        found = {path: m for path, m in modules.items() if is_norm(m)}
    elif pattern.body in ROLES:
        found = {weight.path: weight.module for weight in weights_of(model) if ROLES[pattern.body](weight)}
    else:
        found = {path: m for path, m in modules.items() if pattern.matches(path, {}, exact=False)}
    if not found and pattern.body == "norm":
        raise TargetError(f"train_also: {text!r}: this {type(model).__name__} has no normalisation layer")
    if not found:
        raise TargetError(f"train_also: {text!r} matches no module.{did_you_mean(text, [*modules, *ROLES, 'norm'])}")
    inside = pattern.within(model, list(found))
    return [module for path, module in found.items() if path in inside]


def adapter_parameters(model: nn.Module, name: str | None = None) -> dict[str, nn.Parameter]:
    """State-dict name → trainable factor, of one adapter or of all."""
    named = {id(p): key for key, p in model.named_parameters()}
    return {
        named[id(p)]: p
        for _, host in hosts(model)
        for _, _, slot in adapters(host).slots(name)
        for p in slot.parameters()
    }
