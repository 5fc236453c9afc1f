"""What an adapter keeps: across processes, beside statistics and heads, under base checkpoints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import CASES, adapted, stir
from layers import LAYER, Layer
from smallnets import images, normed
from torch import nn

import visionpeft as vp
from visionpeft import errors

# --- a fresh process ---

RELOAD = """
import sys
import torch
import visionpeft as vp
from cases import CASES
from layers import LAYER

folder = sys.argv[1]
for line in open(f"{folder}/list.txt"):
    number, layer = line.split()
    model = vp.load(LAYER[layer].model().eval(), f"{folder}/{number}")
    expected = torch.load(f"{folder}/{number}/output.pt", weights_only=True)
    vp.set_plan(model, "dense")
    with torch.no_grad():
        assert torch.equal(model(LAYER[layer].input()), expected), (number, layer)
    state = torch.load(f"{folder}/{number}/state.pt", weights_only=True)
    found = vp.adapter_state_dict(model)
    assert state.keys() == found.keys() and all(torch.equal(state[key], found[key]) for key in state), (number, layer)
print("equal")
"""


def layer_of(case: str) -> Layer | None:
    """A layer that the case supports: the hardest of three."""
    for name in ("conv2d-groups", "conv2d", "linear"):
        try:
            adapted(LAYER[name], case)
        except errors.SiteError:
            continue
        return LAYER[name]
    return None


def test_every_method_loads_to_the_bit_in_a_fresh_process(tmp_path: Path):
    lines = []
    for number, case in enumerate(CASES):
        layer = layer_of(case)
        assert layer is not None, case
        model = stir(adapted(layer, case))
        vp.set_plan(model, "dense")
        vp.save(model, tmp_path / str(number))
        with torch.no_grad():
            torch.save(model(layer.input()), tmp_path / str(number) / "output.pt")
        torch.save(vp.adapter_state_dict(model), tmp_path / str(number) / "state.pt")
        lines.append(f"{number} {layer.name}")
    (tmp_path / "list.txt").write_text("\n".join(lines))
    command = [sys.executable, "-c", RELOAD, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


# --- what goes into the folder beside the factors ---


def test_running_statistics_are_saved_when_they_changed(tmp_path: Path):
    model = normed()
    vp.adapt(model, "lora", ["0"])
    stir(model).eval()
    vp.save(model, tmp_path / "still")
    assert not (tmp_path / "still" / "modules.safetensors").exists()
    model.train()(images())
    model.eval()
    vp.save(model, tmp_path / "moved")
    again = vp.load(normed().eval(), tmp_path / "moved")
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(again.get_buffer(f"1.{name}"), model.get_buffer(f"1.{name}")), name
    assert torch.equal(again(images()), model(images()))


def test_a_trained_head_goes_with_the_adapter_and_on(tmp_path: Path):
    model = normed()
    vp.adapt(model, "cp_lora", ["0"], train_also=["3", "norm"])
    steps(model, 3)
    vp.save(model.eval(), tmp_path / "first")
    second = vp.load(normed().eval(), tmp_path / "first")
    vp.save(second, tmp_path / "second")
    third = vp.load(normed().eval(), tmp_path / "second")
    assert torch.equal(third(images()), model(images()))
    assert trains(third) == trains(model)
    assert any(key.startswith("3.") for key in trains(third))


def trains(model: nn.Module) -> set[str]:
    return {key for key, p in model.named_parameters() if p.requires_grad}


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)


def steps(model: nn.Module, count: int, optimizer: torch.optim.Optimizer | None = None, start: int = 0) -> None:
    optimizer = optimizer or optimizer_of(model)
    model.train()
    for step in range(start, start + count):
        optimizer.zero_grad()
        model(images(step)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("method", ["lora", "cp_dora", "salt"])
def test_training_resumes_to_equal_weights(tmp_path: Path, method: str):
    whole = normed()
    vp.adapt(whole, method, ["0"], train_also=["3"], generator=torch.Generator().manual_seed(0))
    optimizer = optimizer_of(whole)
    steps(whole, 3, optimizer)
    vp.save(whole, tmp_path)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    steps(whole, 3, optimizer, start=3)

    resumed = vp.load(normed(), tmp_path)
    optimizer = optimizer_of(resumed)
    optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    steps(resumed, 3, optimizer, start=3)
    expected = whole.state_dict()
    assert expected.keys() == resumed.state_dict().keys()
    assert all(torch.equal(value, expected[key]) for key, value in resumed.state_dict().items())


# --- base checkpoints ---


@pytest.mark.parametrize("method", ["lora", "dora", "salt"])
def test_a_base_checkpoint_loads_strictly_before_and_after(tmp_path: Path, method: str):
    checkpoint = {key: value + 0.1 for key, value in normed().state_dict().items()}
    before, after = normed(), normed()
    before.load_state_dict(checkpoint)
    for model in (before, after):
        vp.adapt(model, method, ["0", "3"], generator=torch.Generator().manual_seed(0))
    after.load_state_dict(checkpoint)
    vp.load_adapter_state_dict(after, vp.adapter_state_dict(stir(before)))
    for plan in ("factored", "dense", "direct", "auto"):
        vp.set_plan(after, plan)
        assert torch.allclose(after.eval()(images()), before.eval()(images()), rtol=1e-5, atol=1e-5), plan
    vp.save(after, tmp_path)
    base = normed()
    base.load_state_dict(checkpoint)
    assert torch.allclose(vp.load(base, tmp_path).eval()(images()), before(images()), rtol=1e-5, atol=1e-5)


def test_a_way_around_the_weight_ends_when_other_weights_are_loaded():
    model = nn.Sequential(nn.Linear(6, 6))
    vp.adapt(model, "salt", ["0"], top=1.0)
    model.load_state_dict({key: value + 1 for key, value in nn.Sequential(nn.Linear(6, 6)).state_dict().items()})
    outputs = {}
    for plan in ("direct", "dense", "auto"):
        vp.set_plan(model, plan)
        outputs[plan] = model(torch.ones(2, 6))
    assert torch.allclose(outputs["direct"], outputs["dense"], atol=1e-5)
    assert torch.allclose(outputs["auto"], outputs["dense"], atol=1e-5)


def test_a_whole_checkpoint_holds_the_adapter_and_half_of_one_is_an_error():
    model, twin = normed(), normed()
    for each in (model, twin):
        vp.adapt(each, "lora", ["0"])
    state = stir(model).state_dict()
    twin.load_state_dict(state)
    assert torch.equal(twin.eval()(images()), model.eval()(images()))
    del state["0.adapters.default.A"]
    with pytest.raises(RuntimeError, match=r"Missing key.*0\.adapters\.default\.A"):
        twin.load_state_dict(state)


def test_what_is_trained_beside_in_channels_last_is_saved(tmp_path: Path):
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 3)).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    vp.adapt(model, "lora", targets=["0"], rank=2, train_also=["1"])
    vp.save(model, tmp_path / "adapter")
    fresh = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 3))
    fresh[0].load_state_dict({"weight": model[0]._parameters["weight"], "bias": model[0].bias})
    vp.load(fresh, tmp_path / "adapter")
    assert torch.equal(fresh[1].weight, model[1].weight)
