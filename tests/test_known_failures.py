"""What HF PEFT 0.21.2 and LyCORIS 4.1.3 get wrong, by name: right here for every method that supports the site.

The oracle is torch's own layer with the changed weight copied into it, so padding, dilation and groups are torch's.
``test_known_failures_elsewhere`` measures the same in those libraries.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from cases import CASES, EVERY_LAYER_BY, PATHS, distance, stir
from layers import LAYER
from torch import Tensor, nn

import visionpeft as vp
from visionpeft.errors import SiteError
from visionpeft.methods import make

MERGEABLE = [case for case, (method, options) in CASES.items() if make(method, options).mergeable]
every_case = pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in EVERY_LAYER_BY else [pytest.mark.slow]) for case in MERGEABLE]
)


def adapt_or_skip(model: nn.Module, case: str, targets: list[str]) -> nn.Module:
    method, options = CASES[case]
    try:
        vp.adapt(model, method, targets, generator=torch.Generator().manual_seed(2), **options)
    except SiteError as refusal:
        pytest.skip(str(refusal))
    return stir(model)


def check_against_torch(build: Callable[[], nn.Module], case: str, targets: list[str], x: Tensor) -> None:
    """All paths, and the merged model, against torch's layers with the changed weights, relative to the effect."""
    model = adapt_or_skip(build(), case, targets)
    twin = build().double().eval()
    wide = copy.deepcopy(model).double()
    for path, module in wide.named_modules():
        for name in ("weight", "in_proj_weight") if hasattr(type(module), "base_class") else ():
            if name in module._parameters and module._parameters[name] is not None:
                twin.get_parameter(f"{path}.{name}".lstrip(".")).data = getattr(module, name).detach()
    x64 = x.double() if x.is_floating_point() else x
    with torch.no_grad():
        expected = twin(x64)
        effect = distance(expected, build().double().eval()(x64))
        assert effect > 1e-3
        for path in PATHS:
            vp.set_plan(model, path)
            assert distance(model(x), expected) <= 1e-5 * effect, path
        vp.merge(model)
        assert distance(model(x), expected) <= 1e-5 * effect, "merged"
        vp.remove(model)
        assert distance(model(x), expected) <= 1e-5 * effect, "merged and removed"


def check_layer(name: str, case: str) -> None:
    layer = LAYER[name]
    check_against_torch(lambda: layer.model().eval(), case, [layer.target], layer.input())


@every_case
def test_dilation(case: str):
    check_layer("conv2d-dilation", case)


@every_case
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_also_merged(case: str, mode: str):
    check_layer(f"conv2d-{mode}", case)


@every_case
@pytest.mark.parametrize("kind", ["groups", "depthwise"])
def test_grouped_and_depthwise_merge(case: str, kind: str):
    check_layer(f"conv2d-{kind}", case)


@every_case
@pytest.mark.parametrize("kernel", ["1x1x1", "1x1x3"])
def test_flat_kernels_of_conv3d(case: str, kernel: str):
    check_layer(f"conv3d-{kernel}", case)


@every_case
@pytest.mark.parametrize("layer", ["convtranspose1d", "convtranspose2d", "convtranspose2d-groups", "convtranspose3d"])
def test_transposed_convolutions(case: str, layer: str):
    check_layer(layer, case)


@every_case
def test_out_proj_of_multihead_attention(case: str):
    check_layer("mha-out", case)


@every_case
def test_ten_cycles_in_bfloat16_change_no_entry(case: str):
    model = adapt_or_skip(nn.Sequential(nn.Linear(32, 24)).bfloat16(), case, ["0"])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for _ in range(10):
        vp.merge(model)
        vp.unmerge(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


# --- real timm networks ---

TIMM = {
    "vit_tiny_patch16_224": {"img_size": 32, "depth": 2},
    "eva02_tiny_patch14_224": {"img_size": 28, "depth": 2},
    "beit_base_patch16_224": {"img_size": 32, "depth": 2, "embed_dim": 48, "num_heads": 3},
    "swinv2_tiny_window8_256": {
        "img_size": 32,
        "embed_dim": 24,
        "depths": (1, 1),
        "num_heads": (2, 2),
        "window_size": 4,
    },
}
READ = ("eva02_tiny_patch14_224", "beit_base_patch16_224", "swinv2_tiny_window8_256")
"""Their biases are separate, so ``qkv.weight`` is read and ``qkv`` never called."""


def timm_model(name: str) -> nn.Module:
    timm = pytest.importorskip("timm")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=5, **TIMM[name]).eval()
        with torch.no_grad():  # some start with closed residual branches, through which no effect would pass
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
    return model


def picture(name: str) -> Tensor:
    size = TIMM[name]["img_size"]
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("case", ["lora", "block_lora", "flora", "salt", "wara", "dora", "cp_lora"])
def test_slices_of_a_real_fused_qkv(case: str):
    name = "vit_tiny_patch16_224"
    check_against_torch(lambda: timm_model(name), case, ["attn.qkv[q,v]"], picture(name))
    model, base = adapt_or_skip(timm_model(name), case, ["attn.qkv[q,v]"]), timm_model(name)
    rows = slice(192, 384)
    qkv = [m.get_submodule("blocks.0.attn.qkv").weight for m in (model, base)]
    assert torch.equal(qkv[0][rows], qkv[1][rows]), "the keys were not asked for"
    assert not torch.equal(qkv[0][:192], qkv[1][:192])
    assert not torch.equal(qkv[0][384:], qkv[1][384:])


@pytest.mark.parametrize("case", ["lora", "salt", "dora"])
@pytest.mark.parametrize("name", READ)
def test_qkv_that_is_read_and_never_called(name: str, case: str):
    uses = vp.audit(timm_model(name), picture(name))
    qkv = [use.word for path, use in uses.items() if path.endswith("qkv")]
    assert qkv, name
    assert set(qkv) == {"read"}
    check_against_torch(lambda: timm_model(name), case, ["attn.qkv"], picture(name))


# --- the evaluation fast path ---


def encoder() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # The fast path is for an even number of heads only.
        return nn.TransformerEncoderLayer(12, 4, 16, dropout=0.0, batch_first=True)


def attention() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.MultiheadAttention(12, 4, batch_first=True)


def operations(run: Callable[[], Tensor]) -> tuple[Tensor, set[str]]:
    """The result, and the names of the torch operations that made it."""
    with torch.no_grad(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as events:
        result = run()
    return result, {event.key for event in events.key_averages()}


@every_case
def test_the_evaluation_fast_path_of_the_encoder_layer(case: str):
    targets, x = ["linear1", "linear2", "self_attn", "self_attn.out_proj"], LAYER["encoder-layer"].input()
    model = adapt_or_skip(encoder(), case, targets)
    trained = model.train()(x).detach()
    evaluated, ran = operations(lambda: model.eval()(x))
    assert "aten::_transformer_encoder_layer_fwd" in ran, "torch did not take its fast path"
    effect = distance(trained, encoder().eval()(x))
    assert effect > 1e-3
    assert distance(evaluated, trained) <= 1e-5 * effect
    for path in ("dense", "factored"):
        vp.set_plan(model, path)
        assert distance(model.train()(x), evaluated) <= 1e-5 * effect, path


@every_case
def test_the_evaluation_fast_path_of_multihead_attention(case: str):
    x = LAYER["encoder-layer"].input()
    model = adapt_or_skip(attention(), case, ["", "out_proj"])
    trained = model.train()(x, x, x, need_weights=False)[0].detach()
    evaluated, ran = operations(lambda: model.eval()(x, x, x, need_weights=False)[0])
    assert "aten::_native_multi_head_attention" in ran, "torch did not take its fast path"
    effect = distance(trained, attention()(x, x, x, need_weights=False)[0])
    assert effect > 1e-3
    assert distance(evaluated, trained) <= 1e-5 * effect
