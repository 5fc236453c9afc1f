"""The laws that every method keeps on every site, on every path and in every precision.

A new method or a new layer enters by being registered or listed; there are no exceptions by name.
"""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from cases import CASES, PATHS, adapted, crossed, distance, stir, supported
from layers import LAYERS, Layer
from torch import Tensor, nn

import visionpeft as vp
from visionpeft.methods import make
from visionpeft.surgery.mount import adapters, hosts

PAIRS = supported()
everywhere = pytest.mark.parametrize(("layer", "case"), crossed())
DTYPES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}
"""Error allowed relative to the adapter's own effect (bfloat16: to output and effect together, its own rounding)."""


def mergeable(model: nn.Module) -> bool:
    return all(slot.method.mergeable for _, host in hosts(model) for _, _, slot in adapters(host).slots())


def frozen(layer: Layer, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The plain base, frozen like an adapted one: attention takes another kernel when weights want gradients."""
    return layer.model(dtype).eval().requires_grad_(False)


def with_gradients(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    y = model(x)
    y.backward(torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).to(y.dtype))
    return y.detach(), {key: p.grad.clone() for key, p in vp.adapter_parameters(model).items() if p.grad is not None}


@everywhere
def test_the_start_is_the_base_to_the_bit(layer: Layer, case: str, dtype: torch.dtype):
    x, base = layer.input(dtype), frozen(layer, dtype)
    model = adapted(layer, case, dtype)
    # A gain acts before the bias, which is then added apart: that is the base up to one rounding.
    exact = not any(slot.method.multiplicative for _, host in hosts(model) for _, _, slot in adapters(host).slots())
    for path in ("factored", "dense"):
        vp.set_plan(model, path)
        with torch.no_grad():  # as the frozen base has no gradients either
            found, expected = model(x), base(x)
        rounding = 0.0 if exact or path == "dense" else 4 * torch.finfo(dtype).eps
        assert torch.allclose(found, expected, rtol=rounding, atol=rounding), path


@everywhere
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_paths_agree(layer: Layer, case: str, dtype: torch.dtype):
    """factored ≡ dense ≡ fused ≡ merged, measured against float64 and relative to the adapter's own effect."""
    x, model = layer.input(dtype), stir(adapted(layer, case, dtype))
    oracle = copy.deepcopy(model).double()
    wide = x.double() if x.is_floating_point() else x
    vp.set_plan(oracle, "dense")
    with torch.no_grad():
        expected = oracle(wide)
        with vp.disable(oracle):
            base = oracle(wide)
    effect = distance(expected, base)
    assert effect > 1e-4, "the factors have no effect, so this law would hold for anything"
    allowed = DTYPES[dtype] * (effect if dtype != torch.bfloat16 else effect + expected.square().mean().sqrt().item())
    for path in PATHS if dtype == torch.float32 else PATHS[:3]:
        vp.set_plan(model, path)
        assert distance(model(x), expected) <= allowed, path
    if mergeable(model):
        vp.merge(model)
        assert distance(model(x), expected) <= allowed, "merged"


@everywhere
def test_gradients_agree_and_reach_every_factor_and_nothing_else(layer: Layer, case: str):
    x, model = layer.input(torch.float64), stir(adapted(layer, case, torch.float64))
    found = {}
    for path in PATHS[:3]:
        vp.set_plan(model, path)
        found[path] = with_gradients(model, x)[1]
    every = vp.adapter_parameters(model)
    for path, gradients in found.items():
        assert gradients.keys() == every.keys(), path
        for key, gradient in gradients.items():
            assert torch.allclose(gradient, found["dense"][key], rtol=1e-8, atol=1e-9), (path, key)
    assert all(p.grad is None for key, p in model.named_parameters() if key not in every)
    assert all((p.grad is not None) == p.requires_grad for p in every.values())


@everywhere
def test_gradcheck(layer: Layer, case: str):
    """Against finite differences, also with respect to the input. DoRA detaches its norm by definition: see golden."""
    method, options = CASES[case]
    if getattr(make(method, options), "multiplicative", False):
        pytest.skip("DoRA's gradient is not the derivative: its norm is detached")
    model = stir(adapted(layer, case, torch.float64))
    inputs = [layer.input(torch.float64)]
    if inputs[0].is_floating_point():
        inputs[0].requires_grad_()
    names, values = zip(*vp.adapter_parameters(model).items(), strict=True)

    def run(x: Tensor, *factors: Tensor) -> Tensor:
        return torch.func.functional_call(model, dict(zip(names, factors, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (*inputs, *values), fast_mode=True, atol=1e-4)


@everywhere
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_ten_merges_and_unmerges_change_no_bit(layer: Layer, case: str, precision: torch.dtype):
    model = stir(adapted(layer, case, precision))
    if not mergeable(model):
        with pytest.raises(vp.errors.StateError, match="cannot be merged"):
            vp.merge(model)
        return
    before = {key: p.clone() for key, p in model.state_dict().items()}
    for _ in range(10):
        vp.merge(model)
        vp.unmerge(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


@everywhere
def test_the_base_is_untouched_and_comes_back(layer: Layer, case: str):
    base, model, x = frozen(layer), adapted(layer, case), layer.input()
    stir(model)
    plain = {key: value for key, value in model.state_dict().items() if ".adapters." not in f".{key}"}
    assert plain.keys() == base.state_dict().keys()
    assert all(torch.equal(plain[key], value) for key, value in base.state_dict().items())
    with vp.disable(model), torch.no_grad():
        assert torch.equal(model(x), base(x))
    assert not torch.equal(model(x), base(x))
    vp.remove(model)
    assert [type(m) for m in model.modules()] == [type(m) for m in base.modules()]
    assert list(model.state_dict()) == list(base.state_dict())
    assert all(p.requires_grad for p in model.parameters() if p.is_floating_point()), "it trains again, as before"
    assert torch.equal(model.requires_grad_(False)(x), base(x))


@everywhere
def test_disable_is_the_base_also_when_merged(layer: Layer, case: str):
    base, model, x = frozen(layer), stir(adapted(layer, case)), layer.input()
    if not mergeable(model):
        pytest.skip("cannot be merged")
    vp.merge(model)
    merged = model(x)
    with vp.disable(model), torch.no_grad():
        assert torch.equal(model(x), base(x))
    assert torch.equal(model(x), merged)


@everywhere
def test_save_and_load_keep_every_bit(layer: Layer, case: str, tmp_path):
    model, x = stir(adapted(layer, case)), layer.input()
    vp.save(model, tmp_path)
    again = vp.load(layer.model().eval(), tmp_path)
    first, second = vp.adapter_state_dict(model), vp.adapter_state_dict(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(again(x), model(x))


@everywhere
def test_deepcopy_and_pickle(layer: Layer, case: str):
    model, x = stir(adapted(layer, case)), layer.input()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert [type(m) for m in twin.modules()] == [type(m) for m in model.modules()]
        assert torch.equal(twin(x), model(x))
        stir(twin, seed=9)
        assert not torch.equal(twin(x), model(x)), "the twin must not share its factors"


@everywhere
def test_training_evaluation_and_inference_mode_agree(layer: Layer, case: str):
    model, x = stir(adapted(layer, case, torch.float64)), layer.input(torch.float64)
    evaluated = model.eval()(x).detach()
    assert torch.allclose(model.train()(x), evaluated, rtol=1e-12, atol=1e-12)
    with torch.inference_mode():
        assert torch.allclose(model.eval()(x), evaluated, rtol=1e-12, atol=1e-12)


@everywhere
def test_two_adapters_add_up_in_any_order(layer: Layer, case: str):
    method, options = CASES[case]
    x = layer.input(torch.float64)

    def model_with(*names: str) -> nn.Module:
        model = layer.model(torch.float64).eval()
        for name in names:
            vp.adapt(model, method, targets=[layer.target], name=name, **options)
        for name in names:
            stir(model, seed=ord(name), name=name)
        return model

    states = {name: vp.adapter_state_dict(model_with(name), name) for name in "ab"}
    outputs = {}
    for order in ("ab", "ba"):
        model = model_with(*order)
        for name in order:
            vp.load_adapter_state_dict(model, states[name], name)
        vp.set_plan(model, "factored")
        outputs[order] = {"both": model(x), "weights": effective(model)}
        for name in order:
            vp.activate(model, name)
            outputs[order][name] = effective(model)
    base = {key: value.double() for key, value in weights(layer.model(torch.float64)).items()}
    both, alone = outputs["ab"]["weights"], outputs["ab"]
    assert torch.allclose(outputs["ab"]["both"], outputs["ba"]["both"], rtol=1e-10, atol=1e-10)
    for key in both:
        expected = alone["a"][key] + alone["b"][key] - base[key]
        assert torch.allclose(both[key], expected, rtol=1e-10, atol=1e-10), key


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {key: p.detach().clone() for key, p in model.named_parameters() if ".adapters." not in f".{key}"}


def effective(model: nn.Module) -> dict[str, Tensor]:
    """The merged weights, where the active adapters can be merged."""
    if not mergeable(model):
        return {}
    vp.merge(model)
    found = weights(model)
    vp.unmerge(model)
    return found


@everywhere
def test_checkpointing_changes_no_gradient(layer: Layer, case: str):
    model, x = stir(adapted(layer, case, torch.float64)), layer.input(torch.float64)
    if x.is_floating_point():
        x.requires_grad_()
    for path in PATHS[:3]:
        vp.set_plan(model, path)
        _, plain = with_gradients(model, x)
        model.zero_grad()
        y = torch.utils.checkpoint.checkpoint(model, x, use_reentrant=False)
        y.backward(torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape))
        for key, parameter in vp.adapter_parameters(model).items():
            assert torch.equal(parameter.grad, plain[key]), (path, key)


def test_every_method_is_refused_or_supported_on_every_layer_with_a_sentence():
    pairs = {(layer.name, case) for layer, case in PAIRS}
    for layer in LAYERS:
        for case in CASES:
            if (layer.name, case) in pairs:
                continue
            with pytest.raises(vp.errors.SiteError, match=r"refuses every target; .*: \w.{20,}"):
                adapted(layer, case)
    assert len(pairs) > 0.75 * len(LAYERS) * len(CASES)
