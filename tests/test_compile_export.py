"""Adapted models under what rebuilds or rewrites a model: compile, export, functional calls, meta, autocasting."""

from __future__ import annotations

import copy

import pytest
import torch
from cases import CASES, adapted, distance, stir
from layers import LAYER, Layer
from smallnets import images, normed
from torch import Tensor, nn

import visionpeft as vp
from visionpeft.errors import SiteError
from visionpeft.methods import make

REGISTERED = [name for name in CASES if name in vp.methods()]
PAIRS = [(layer, case) for layer in ("linear", "conv2d") for case in REGISTERED]
QUICK = {("linear", "lora"), ("conv2d", "cp_lora"), ("linear", "salt"), ("conv2d", "dora"), ("conv2d", "flora")}
TIERED = [pytest.param(*pair, marks=[] if pair in QUICK else [pytest.mark.slow]) for pair in PAIRS]
INDUCTOR = ("lora", "cp_dora", "salt")


def ready(layer: str, case: str) -> tuple[nn.Module, Tensor]:
    """A stirred model and its input; skips refusals."""
    host: Layer = LAYER[layer]
    try:
        model = stir(adapted(host, case))
    except SiteError as refusal:
        pytest.skip(str(refusal))
    return model, host.input()


def outcome(run, model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Output, gradient of the input, and gradients of the factors."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    y = run(x)
    y.backward(torch.linspace(-1, 1, y.numel()).view(y.shape))
    assert x.grad is not None
    gradients = {key: p.grad.clone() for key, p in vp.adapter_parameters(model).items() if p.grad is not None}
    assert gradients.keys() == vp.adapter_parameters(model).keys()
    return {"output": y.detach(), "input": x.grad, **gradients}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for key in expected:
        assert torch.allclose(found[key], expected[key], rtol=1e-4, atol=1e-4), key


@pytest.mark.parametrize(("layer", "case"), TIERED)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compile_as_one_graph_forward_and_backward(layer: str, case: str, backend: str):
    if backend == "inductor" and case not in INDUCTOR:
        pytest.skip("inductor is tried on three methods")
    model, x = ready(layer, case)
    expected = outcome(model, model, x)
    torch._dynamo.reset()
    same(outcome(torch.compile(model, fullgraph=True, backend=backend), model, x), expected)


@pytest.mark.parametrize("layer", ["read-qkv", "mha-slices", "convtranspose2d", "conv2d-circular", "encoder-layer"])
def test_compile_of_other_hosts(layer: str):
    model, x = ready(layer, "lora")
    model.train()
    expected = outcome(model, model, x)
    torch._dynamo.reset()
    same(outcome(torch.compile(model, fullgraph=True, backend="aot_eager"), model, x), expected)


def test_compiled_code_follows_activation_and_merging():
    """What was compiled must not go on with adapters that were switched off since."""
    model, x = ready("linear", "lora")
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        outputs = {"on": compiled(x)}
        with vp.disable(model):
            outputs["off"] = compiled(x)
            assert torch.allclose(outputs["off"], model(x))
        assert not torch.allclose(outputs["on"], outputs["off"])
        vp.activate(model, {"default": 0.5})
        assert torch.allclose(compiled(x), model(x), atol=1e-5)
        assert torch.allclose(compiled(x), (outputs["on"] + outputs["off"]) / 2, atol=1e-4)
        vp.merge(model)
        assert torch.allclose(compiled(x), (outputs["on"] + outputs["off"]) / 2, atol=1e-4)


@pytest.mark.parametrize(("layer", "case"), TIERED)
@pytest.mark.parametrize("strict", [True, False])
def test_export_merged_and_unmerged(layer: str, case: str, strict: bool):
    model, x = ready(layer, case)
    expected = model(x).detach()
    program = torch.export.export(model, (x,), strict=strict)
    assert torch.allclose(program.module()(x), expected, atol=1e-4)
    if not make(*CASES[case]).mergeable:
        return
    vp.merge(model)
    vp.remove(model)
    program = torch.export.export(model, (x,), strict=strict)
    assert torch.allclose(program.module()(x), expected, atol=1e-4)
    assert not [key for key in program.state_dict if "adapters" in key]


def test_export_with_a_dynamic_batch():
    model, x = ready("conv2d", "cp_lora")
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(model, (x,), dynamic_shapes=(batch,))
    larger = torch.cat([x, x, x])
    assert torch.allclose(program.module()(larger), model(larger), atol=1e-5)


@pytest.mark.parametrize(("layer", "case"), PAIRS)
def test_functional_call_and_vmap_over_adapters(layer: str, case: str):
    """Two sets of factors run as one batch."""
    model, x = ready(layer, case)
    twin = stir(copy.deepcopy(model), seed=5)
    first, second = vp.adapter_parameters(model), vp.adapter_parameters(twin)
    stacked = {key: torch.stack([first[key], second[key]]).detach() for key in first}

    def run(factors: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, factors, (x,))

    found = torch.func.vmap(run)(stacked)
    assert torch.allclose(found[0], model(x), rtol=1e-4, atol=1e-4)
    assert torch.allclose(found[1], twin(x), rtol=1e-4, atol=1e-4)
    gradients = torch.func.grad(lambda factors: run(factors).sum())({key: p.detach() for key, p in first.items()})
    model(x).sum().backward()
    for key, p in first.items():
        assert torch.allclose(gradients[key], p.grad, rtol=1e-3, atol=1e-3), key


@pytest.mark.parametrize("case", REGISTERED)
def test_adapted_on_meta_then_filled(case: str):
    """Built and adapted without memory, then given its weights."""
    source, x = ready("linear", case)
    with torch.device("meta"):
        model = LAYER["linear"].build().eval()
    method, options = CASES[case]
    vp.adapt(model, method, [""], **options)
    assert all(t.is_meta for t in model.state_dict().values())
    model.to_empty(device="cpu")
    model.load_state_dict(source.state_dict())
    assert torch.allclose(model(x), source(x), atol=1e-6)


PLANS = ("factored", "dense", "fused", "direct", "auto")


@pytest.mark.parametrize(("layer", "case"), PAIRS)
def test_autocasting_on_every_path(layer: str, case: str):
    model, x = ready(layer, case)
    exact = model(x).detach()
    expected = outcome(model, model, x)
    for plan in PLANS:
        vp.set_plan(model, plan)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = outcome(lambda x: model(x).float(), model, x)
            assert model(x).dtype == torch.bfloat16, plan
        sizes = {key: value.square().mean().sqrt().item() for key, value in expected.items()}
        for key, value in found.items():  # a gradient of few values is a sum that cancels: measured by all of them
            size = sizes[key] if key == "output" else max(sizes.values())
            assert distance(value, expected[key]) <= 0.03 * size, (plan, key)
    assert torch.equal(model(x).detach(), exact) or torch.allclose(model(x), exact, atol=1e-5)


def test_forward_mode_and_second_derivatives_take_ordinary_operations():
    model, x = ready("linear", "lora")
    model(x)  # the plan is made
    _, tangent = torch.func.jvp(model, (x,), (torch.ones_like(x),))
    expected = torch.nn.functional.linear(torch.ones_like(x), model.weight)
    assert torch.allclose(tangent, expected, atol=1e-4)
    with torch.autograd.forward_ad.dual_level():
        dual = model(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))
        assert torch.allclose(torch.autograd.forward_ad.unpack_dual(dual).tangent, expected, atol=1e-4)


def test_a_trained_network_is_copied_whole():
    model = normed()
    vp.adapt(model, "lora", ["0"], train_also=["3"])
    stir(model).eval()
    vp.merge(model)
    twin = copy.deepcopy(model)
    for each in (model, twin):
        vp.unmerge(each)
    assert torch.equal(twin(images()), model(images()))
    assert twin[0]._parameters["weight"] is not model[0]._parameters["weight"]
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in model.parameters()]
