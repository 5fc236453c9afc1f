"""The comparison: every contestant on every network, as rows of plain figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from visionpeft.bench.contestants import FLOOR, FULL, Contestant, contestant, known, parsed
from visionpeft.bench.measure import merge_seconds, saved_bytes, seconds_a_step
from visionpeft.bench.nets import DEFAULT_NETS, build, family
from visionpeft.bench.others import PACKAGES
from visionpeft.errors import OptionError, unknown

DEFAULT_METHODS = ("lora", "block_lora", "cp_lora", "flora", "salt", "wara")


@dataclass(frozen=True)
class Row:
    """One contestant on one network.

    Args:
        net: the network, ``"<family>@<size>"``.
        label: the contestant.
        trainable: parameters that train.
        seconds: CPU seconds of a step, all threads together, median.
        saved_bytes: what autograd keeps between forward and backward, beside parameters and buffers.
        to_full: ``seconds`` relative to full fine-tuning.
        to_floor: ``seconds`` relative to a step that only carries the gradient back to the input.
        saved_to_full: ``saved_bytes`` relative to full fine-tuning.
        merge_seconds: CPU seconds to merge; None where there is nothing to merge or it failed.
        merge_error: why merging failed, else empty.
        file_bytes: size of the saved adapter; 0 where there is none.
    """

    net: str
    label: str
    trainable: int
    seconds: float
    saved_bytes: int
    to_full: float
    to_floor: float
    saved_to_full: float
    merge_seconds: float | None
    merge_error: str
    file_bytes: int


def run(
    nets: Sequence[str] = DEFAULT_NETS,
    methods: Sequence[str] = DEFAULT_METHODS,
    rank: int = 8,
    repeats: int = 11,
    compare: bool = True,
    progress: Callable[[str], None] = lambda what: None,
) -> list[Row]:
    """Measure ``methods`` on every Linear and convolution of ``nets`` (of CLIP on q, k, v), in turns, in this process.

    Args:
        nets: names of :data:`visionpeft.bench.nets.NETS`, each with an optional ``@size``.
        methods: names of methods that adapt weights, each with options behind: ``lora_c:layout=separable``.
        rank: rank of all of them.
        repeats: rounds; the median counts.
        compare: whether others take part, where installed.
        progress: called with the network's name after every step timed.

    Raises:
        UserError: an unknown network or method, a size or a count that cannot be.
    """
    if repeats < 1:
        raise OptionError(f"repeats = {repeats}, but it must be a whole number ≥ 1")
    labels = {net: _labels(methods, compare, net) for net in nets}
    for net in nets:
        build(net)  # a wrong name is an error now, not after the first network was timed
    return [row for net in nets for row in _measure(net, labels[net], rank, repeats, progress)]


def _labels(methods: Sequence[str], compare: bool, net: str) -> list[str]:
    for name in methods:
        if parsed(name)[0] not in known():
            raise unknown("method", parsed(name)[0], known())
    chosen = [FULL, FLOOR, *methods]
    chosen += [label for label in family(net).others if PACKAGES[label].installed] if compare else []
    return list(dict.fromkeys(chosen))


def steps(methods: Sequence[str], compare: bool, nets: Sequence[str], repeats: int) -> int:
    """How often :func:`run` will call ``progress``."""
    return sum(len(_labels(methods, compare, net)) for net in nets) * repeats


def _measure(net: str, labels: list[str], rank: int, repeats: int, progress: Callable[[str], None]) -> list[Row]:
    contestants = [contestant(label, *build(net), rank, family(net).targets) for label in labels]
    seconds = seconds_a_step(contestants, repeats, lambda: progress(net))
    saved = [saved_bytes(c) for c in contestants]
    full, floor = labels.index(FULL), labels.index(FLOOR)
    return [
        _row(net, c, seconds[i], saved[i], (seconds[full], seconds[floor], saved[full]))
        for i, c in enumerate(contestants)
    ]


def _row(net: str, c: Contestant, seconds: float, saved: int, against: tuple[float, float, int]) -> Row:
    trainable, file_bytes = c.trainable, c.file_bytes()
    full, floor, full_saved = against
    ratios = (seconds / full, seconds / floor, saved / full_saved)
    return Row(net, c.label, trainable, seconds, saved, *ratios, *merge_seconds(c), file_bytes)
