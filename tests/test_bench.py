"""The benchmark: its figures are what they say, and its command refuses what it cannot measure."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from visionpeft import bench
from visionpeft.bench.contestants import FLOOR, FULL, PACKAGES, Contestant, contestant
from visionpeft.bench.measure import saved_bytes, seconds_a_step
from visionpeft.bench.nets import NETS, build
from visionpeft.errors import UserError

ROWS = 64 * 32 * 4  # bytes of one (64, 32) float32 map


def small() -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)), torch.randn(64, 32)


def test_saved_bytes_count_each_storage_once_and_no_parameters():
    full, floor = (saved_bytes(contestant(label, *small(), rank=2)) for label in (FULL, FLOOR))
    assert full == 2 * ROWS + 64 * 32 * 4  # the input, ReLU's output (shared with the second layer), the squared loss
    assert floor == full - ROWS  # a frozen layer keeps no input


def test_every_step_trains_what_is_counted_and_nothing_else():
    for label in (FULL, FLOOR, "lora"):
        one = contestant(label, *small(), rank=2)
        before = [p.detach().clone() for p in one.model.parameters()]
        for _ in range(2):  # the second factor of lora gets a gradient once the first has left zero
            one.step()
        changed = sum(b.numel() for b, p in zip(before, one.model.parameters(), strict=True) if not torch.equal(b, p))
        assert changed == one.trainable
        assert one.trainable == {FULL: 2 * (32 * 32 + 32), FLOOR: 0, "lora": 2 * 2 * (32 + 32)}[label]


def test_contestants_take_turns():
    turns = []

    def fake(label: str) -> Contestant:
        one = contestant(FLOOR, *small(), rank=2)
        one.model.register_forward_hook(lambda *_: turns.append(label))
        return one

    seconds = seconds_a_step([fake("a"), fake("b")], 2, lambda: None)
    assert turns == ["a", "b", "a", "b", "a", "b"] and len(seconds) == 2


@pytest.mark.parametrize("name", sorted(NETS))
def test_networks_are_built_alike_each_time_and_leave_the_global_seed(name):
    state = torch.random.get_rng_state()
    (first, x), (second, y) = build(name), build(name)
    assert torch.equal(state, torch.random.get_rng_state()) and torch.equal(x, y)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.slow
def test_command_writes_the_figures_it_prints(tmp_path, capsys):
    file = tmp_path / "figures.json"
    bench.main(["--nets", "vit-tiny@32", "--methods", "lora,salt", "--repeats", "1", "--json", str(file)])
    written = json.loads(file.read_text())
    installed = [label for label, package in PACKAGES.items() if package.installed]
    assert [row["label"] for row in written["rows"]] == [FULL, FLOOR, "lora", "salt", *installed]
    full, _, lora, *_ = written["rows"]
    assert full["to_full"] == full["saved_to_full"] == 1 and full["file_bytes"] == 0
    assert lora["file_bytes"] > 4 * lora["trainable"] and lora["merge_seconds"] > 0
    assert lora["saved_to_full"] == lora["saved_bytes"] / full["saved_bytes"]
    assert f"{lora['trainable']:,}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nets", "vit-tinny"], "vit-tiny"),
        (["--nets", "vit-tiny@100"], "multiple of 16"),
        (["--methods", "loar"], "lora"),
        (["--repeats", "0"], "repeats = 0"),
    ],
)
def test_wrong_input_ends_with_code_2_and_what_would_be_right(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        bench.main(arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_wrong_input_of_the_function_is_a_user_error():
    with pytest.raises(UserError):
        bench.run(["unet-2d@250"])
