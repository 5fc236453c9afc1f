"""The test vectors of released reference modules (or float64 formulas): every case on every path."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest
from safetensors import safe_open
from torch import Tensor, nn

import visionpeft as vp

FILES = sorted((Path(__file__).parent / "golden").glob("*.safetensors"))
FLOAT32_ULP = 2.0**-23


class Attention(nn.Module):
    def __init__(self, attn: nn.MultiheadAttention, causal: bool):
        super().__init__()
        self.attn, self.causal = attn, causal

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, dtype=x.dtype) if self.causal else None
        return self.attn(x, x, x, need_weights=False, attn_mask=mask)[0]


def read(file: Path) -> tuple[dict, dict[str, Tensor]]:
    with safe_open(file, "pt") as handle:
        tensors = {key: handle.get_tensor(key).double() for key in handle.keys()}  # noqa: SIM118
        return json.loads(handle.metadata()["case"]), tensors


def host(layer: dict, base: dict[str, Tensor]) -> tuple[nn.Module, str, str]:
    """The layer, the target that adapts it, and the prefix of its factors."""
    kind, arguments = layer["type"], {key: value for key, value in layer.items() if key != "type"}
    if kind == "MultiheadAttention":
        causal = arguments.pop("causal")
        attn = nn.MultiheadAttention(**arguments)
        attn.load_state_dict(base)
        return Attention(attn, causal), "l.attn[q,k,v]", "l.attn."
    if kind == "Block":
        block = nn.Linear(layer["dim"], layer["dim"])
        nn.init.eye_(block.weight)
        nn.init.zeros_(block.bias)
        return block, "l", "l."
    module = getattr(nn, kind)(**arguments)
    module.load_state_dict(base)
    return module, "l", "l."


def build(file: Path) -> tuple[dict, dict[str, Tensor], nn.Module, str]:
    case, tensors = read(file)
    module, target, prefix = host(case["layer"], _under(tensors, "base."))
    model = nn.Sequential(OrderedDict(l=module)).double()
    options = {key: value for key, value in case["config"].items() if key != "slices"}
    vp.adapt(model, case["method"], targets=[target], **options)
    factors = _under(tensors, "factor.") | _under(tensors, "buffer.")
    vp.load_adapter_state_dict(model, {prefix + key: value for key, value in factors.items()})
    return case, tensors, model, prefix


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def check(found: Tensor, stored: Tensor, tolerance: float, what: str) -> None:
    """Within the case's tolerance, or within one float32 step of the largest value, which is all a file can hold."""
    allowed = max(tolerance, FLOAT32_ULP * stored.abs().max().item())
    error = (found - stored).abs().max().item()
    assert error <= allowed, f"{what}: error {error:.2e}, allowed {allowed:.2e}"


@pytest.mark.parametrize("path", ["factored", "dense", "fused", "auto"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_values_and_gradients(file: Path, path: str):
    case, tensors, model, prefix = build(file)
    vp.set_plan(model, path)
    x = tensors["x"].requires_grad_()
    y = model(x)
    y.backward(tensors["gy"])
    check(y, tensors["y"], case["tolerance"], "y")
    check(x.grad, tensors["grad.x"], case["tolerance"], "grad.x")
    parameters = {key.replace(".adapters.default", ""): p for key, p in vp.adapter_parameters(model).items()}
    for name, gradient in _under(tensors, "grad.factor.").items():
        check(parameters[prefix + name].grad, gradient, case["tolerance"], f"grad.{name}")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_merged_values_and_delta(file: Path):
    case, tensors, model, _ = build(file)
    if case["layer"]["type"] == "Block":
        with pytest.raises(vp.errors.StateError, match="cannot be merged"):
            vp.merge(model)
        return
    vp.merge(model)
    check(model(tensors["x"]), tensors["y"], case["tolerance"], "y")
    if "delta" in tensors and case["method"] != "cp_dora":
        check(model.l.weight - tensors["base.weight"], tensors["delta"], case["tolerance"], "ΔW")


def test_every_vector_is_here():
    assert len(FILES) == 19
