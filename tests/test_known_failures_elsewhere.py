"""The failures of HF PEFT and LyCORIS that ``test_known_failures`` holds us to, measured there by the same yardstick.

Errors are relative to the adapter's own effect. A comparison that fails means that the library has mended its bug, and
may go.
"""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from cases import distance
from layers import LAYER, Layer
from torch import Tensor, nn


def encoder() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # The fast path is for an even number of heads only.
        return nn.TransformerEncoderLayer(12, 4, 16, dropout=0.0, batch_first=True)


def stir_others(module: nn.Module) -> None:
    stream = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "lora" in name:
                parameter += 0.3 * torch.randn(parameter.shape, generator=stream).to(parameter)


def with_peft(base: nn.Module, target: str):
    peft = pytest.importorskip("peft", minversion="0.21.2")
    model = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=[target]))
    stir_others(model)
    return model.eval()


@torch.no_grad()
def peft_figures(base: nn.Module, target: str, x: Tensor) -> tuple[float, float]:
    """The adapter's effect on the output, and the merged model's error relative to it."""
    plain = base(x)
    model = with_peft(base, target)
    adapted = model(x)
    effect = distance(adapted, plain)
    return effect, distance(model.merge_and_unload()(x), adapted) / max(effect, 1e-12)


@torch.no_grad()
def lycoris_figures(base: nn.Module, x: Tensor) -> tuple[float, float]:
    lycoris = pytest.importorskip("lycoris")
    logging.getLogger("LyCORIS").setLevel(logging.ERROR)
    plain = base(x)
    kinds = ["Linear", "Conv2d", "Conv3d", "ConvTranspose2d", "Sequential", "NonDynamicallyQuantizableLinear"]
    lycoris.LycorisNetwork.apply_preset({"target_module": kinds})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = lycoris.create_lycoris(base, 1.0, linear_dim=4, linear_alpha=4, conv_dim=4, conv_alpha=4, algo="lora")
    net.apply_to()
    stir_others(net)
    adapted = base.eval()(x)
    effect = distance(adapted, plain)
    net.restore()
    net.merge_to(1.0)
    return effect, distance(base(x), adapted) / max(effect, 1e-12)


def inside(layer: Layer) -> nn.Module:
    return nn.Sequential(layer.model()).eval()


def target_in(layer: Layer) -> str:
    return f"0.{layer.target}".rstrip(".")


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("library", ["peft", "lycoris"])
def test_others_merge_another_function_with_this_padding(library: str, mode: str):
    layer = LAYER[f"conv2d-{mode}"]
    if library == "peft":
        effect, error = peft_figures(inside(layer), target_in(layer), layer.input())
    else:
        effect, error = lycoris_figures(inside(layer), layer.input())
    assert effect > 0.1
    assert error > 0.4, f"{library} merges padding_mode={mode} within {error:.1%} of the effect: drop this comparison"


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("conv2d-dilation", RuntimeError),
        ("conv2d-groups", NotImplementedError),
        ("conv2d-depthwise", ValueError),
        ("conv3d-1x1x1", RuntimeError),
        ("conv3d-1x1x3", RuntimeError),
        ("convtranspose2d", ValueError),
    ],
)
def test_peft_cannot_run_or_merge_these(name: str, error: type[Exception]):
    layer = LAYER[name]
    with pytest.raises(error):
        peft_figures(inside(layer), target_in(layer), layer.input())


@pytest.mark.parametrize("name", ["mha-out", "read-qkv"])
@pytest.mark.parametrize("library", ["peft", "lycoris"])
def test_others_adapt_what_is_only_read_in_silence_and_without_effect(library: str, name: str):
    layer = LAYER[name]
    if library == "peft":
        effect, _ = peft_figures(inside(layer), target_in(layer), layer.input())
    else:
        effect, _ = lycoris_figures(inside(layer), layer.input())
    assert effect < 1e-6, f"{library} now adapts {name} by {effect:.2f}: drop this comparison"


def test_peft_drifts_in_ten_bfloat16_cycles():
    base = nn.Sequential(nn.Linear(128, 128)).bfloat16()
    model = with_peft(base, "0")
    weight = model.get_submodule("base_model.model.0").get_base_layer().weight
    before = weight.detach().clone()
    for _ in range(10):
        model.merge_adapter()
        model.unmerge_adapter()
    changed = (weight != before).float().mean().item()
    assert changed > 0.1, f"PEFT changes {changed:.1%} of the entries: drop this comparison"


def test_lycoris_is_not_seen_by_the_evaluation_fast_path():
    effect, error = lycoris_figures(nn.Sequential(encoder()).eval(), LAYER["encoder-layer"].input())
    assert effect < 1e-6, f"LyCORIS now acts in evaluation, by {effect:.2f}: drop this comparison"
    assert error > 1, "merged, it does act"
