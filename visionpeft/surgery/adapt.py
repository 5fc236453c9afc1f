"""``adapt``: put a method on the targets of a model."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from visionpeft.algebra.factor import Origin
from visionpeft.algebra.method import BlockMethod, Method, Options
from visionpeft.errors import OptionError, SiteError, TargetError
from visionpeft.kernels.recompute import layers  # pyright: ignore[reportMissingImports]
from visionpeft.methods import make
from visionpeft.surgery.attention import PACKED, is_attention
from visionpeft.surgery.audit import Audit, audit
from visionpeft.surgery.guards import check_model, check_target
from visionpeft.surgery.hosts import is_called
from visionpeft.surgery.ledger import Record, ledger, statistics_digests
from visionpeft.surgery.mount import mount
from visionpeft.surgery.plan import check_plan
from visionpeft.surgery.quantized import in_full
from visionpeft.surgery.report import Refusal, Report, SiteReport
from visionpeft.surgery.roles import ROLES, roles_in
from visionpeft.surgery.slots import Block, Slot, check_name, started
from visionpeft.surgery.targets import Target, resolve, resolve_blocks, weights_of
from visionpeft.surgery.trainable import check_whole, freeze_base, modules_named, train_whole

DEFAULT_ROLES = ("linear", "conv")


def adapt(
    model: nn.Module,
    method: str | Options,
    targets: list[str] | str | None = None,
    name: str = "default",
    *,
    example: Any = None,
    plan: str = "auto",
    train_also: list[str] | str = (),  # pyright: ignore[reportArgumentType]
    generator: torch.Generator | None = None,
    **options: Any,
) -> Report:
    """Adapt ``model`` in place with a few trainable factors; the base is frozen.

    Args:
        model: any module; a single layer is adapted with ``targets=[""]``.
        method: a name of ``vp.methods()`` (or ``dora(NAME)``) with its options as keywords, or a method instance.
        targets: module paths, suffixes, globs, ``re:…``, roles (``attn.qkv[q,v]``, ``conv.3x3``, …). None: every
            Linear and convolution, or every block for a block method.
        name: name of the adapter; several can live on one model.
        example: an input (tensor, tuple or dict). With it the model is audited, a target that is neither called nor
            read is an error, and the plan is made for this input's shapes. An audit already made serves as well.
        plan: ``auto``, ``factored``, ``dense``, ``fused`` or ``direct``; see ``set_plan``.
        train_also: modules to train whole beside the adapter, such as ``head`` or ``norm``.
        generator: randomness of the starts; None takes torch's global stream.

    Returns:
        A report of matched sites, refused ones with their reason, and counts.

    Raises:
        UnknownNameError, OptionError: an unknown method or option, or a value it does not accept.
        TargetError: a pattern matches nothing, or a target is dead.
        SiteError: the method refuses every target.
        StateError: the model is compiled, sharded, merged, or has this adapter already.
    """
    check_name(name)
    check_plan(plan)
    chosen = _method(method, options)
    check_model(model, name)
    patterns = [targets] if isinstance(targets, str) else targets
    patterns = list(patterns) if patterns is not None else _default_targets(model, chosen)
    if not patterns:
        raise TargetError("targets is empty; leave it out for every Linear and convolution, or name some")
    audited = example if example is None or isinstance(example, Audit) else audit(model, example)
    plant: Any = _plant_blocks if isinstance(chosen, BlockMethod) else _plant_weights
    slots, report = plant(model, chosen, patterns, audited, generator)
    also = [train_also] if isinstance(train_also, str) else list(train_also)
    whole = [module for pattern in also for module in modules_named(model, pattern)]
    check_whole(whole)
    # Nothing has been changed up to here: all that can fail has been tried.
    statistics = statistics_digests(model)
    for target, slot in slots:
        slot.plan = plan
        mount(target.module, name, target.piece, slot)
    thawed = freeze_base(model)
    layers.attach(model)  # norms and activations that need not keep what can be made again
    train_whole(whole)
    ledger(model)[name] = Record(chosen, [t.path for t, _ in slots], statistics, thawed)
    return report.counted(model, slots, audited)


def _method(method: str | Options, options: dict[str, Any]) -> Options:
    if isinstance(method, str):
        return make(method, options)
    if options:
        raise OptionError(f"options {sorted(options)} beside a method instance: set them on the instance")
    if not isinstance(method, Options):
        raise OptionError(f"method = {method!r}, but it must be a name or a method instance")
    return method


def _default_targets(model: nn.Module, method: Options) -> list[str]:
    if isinstance(method, BlockMethod):
        return ["block"]
    there = roles_in(weights_of(model))
    return [role for role in DEFAULT_ROLES if role in there] or list(DEFAULT_ROLES)


Planted = tuple[list[tuple[Target, Slot]], Report]


def _plant_weights(model, method: Method, patterns, audited: Audit | None, generator) -> Planted:
    slots, report = [], Report(method)
    for target in resolve(model, patterns):
        reason = check_target(target, method, read=audited is not None and "read" in _use(audited, target))
        if reason:
            report.refused.append(Refusal(target.path, reason))
            continue
        if audited is not None and _use(audited, target) == "dead":
            report.dead.append(target.path)
            continue
        weight = target.module._parameters[target.parameter]
        origin = Origin(target.site.canonical(in_full(weight).detach()), generator)  # pyright: ignore[reportArgumentType]
        slot = Slot(method, target.site, target.parameter)
        slots.append((target, _filled(slot, method, target.site, origin)))
        report.sites.append(SiteReport.of(target, slot))
    _check_outcome(method, patterns, slots, report)
    _warn_of_dropout(method, [target for target, _ in slots])
    return slots, report


def _warn_of_dropout(method: Method, targets: list[Target]) -> None:
    read = [target.path for target in targets if not _runs_as_layer(target)]
    if method.dropout and read:
        warnings.warn(
            f"dropout = {method.dropout} does not act on {len(read)} weights that are read, not called "
            f"(the first: {read[0]!r}): whoever reads them gets W+ΔW and keeps the input to itself",
            stacklevel=4,
        )


def _runs_as_layer(target: Target) -> bool:
    if target.parameter == PACKED:
        return is_attention(target.module)
    return target.parameter == "weight" and is_called(target.module)


def _plant_blocks(model, method: BlockMethod, patterns, audited: Audit | None, generator) -> Planted:
    slots, report = [], Report(method)
    matched = resolve_blocks(model, patterns)
    for path, module in matched[method.every - 1 :: method.every]:
        block = _block(path, module)
        like = next(module.parameters())
        slot = _filled(Slot(method, block, ""), method, block.width, Origin(like, generator))
        target = Target(path, module, "", "", None)  # pyright: ignore[reportArgumentType]
        slots.append((target, slot))
        report.sites.append(SiteReport.of(target, slot))
    _check_outcome(method, patterns, slots, report)
    return slots, report


def _filled(slot: Slot, method: Any, site: Any, origin: Origin) -> Slot:
    for factor_name, (factor, tensor) in started(method, site, origin).items():
        slot.add(factor_name, factor, tensor)
    return slot


def _block(path: str, module: nn.Module) -> Block:
    """Width of a block's output: that of its last Linear or convolution, in the order of definition.

    The projections into attention are left out: some networks define them last, and they are no output.
    """
    layers = [w for w in weights_of(module) if w.site.kind in ("linear", "conv") and not ROLES["attn.qkv"](w)]
    if not layers:
        raise TargetError(f"targets: {path!r} has no Linear or convolution, so the width of its output is unknown")
    return Block(layers[-1].site.out, any(w.site.kind == "conv" for w in layers))


def _use(audited: Audit, target: Target) -> str:
    return audited[target.weight_path].word


def _check_outcome(method: Options, patterns: list[str], slots: list, report: Report) -> None:
    if report.dead:
        shown = ", ".join(repr(path) for path in report.dead[:5])
        raise TargetError(
            f"dead targets, neither called nor read when the model ran: {shown}. Leave them out of targets"
        )
    if not slots and report.refused:
        first = report.refused[0]
        raise SiteError(f"{method.name} refuses every target; {first.path or 'the layer'!r}: {first.reason}")
    if not slots:
        raise TargetError(f"targets: {patterns} leave nothing to adapt with every = {getattr(method, 'every', 1)}")
