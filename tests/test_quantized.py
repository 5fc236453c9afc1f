"""Bases in few bits: adapters on them answer, learn, are saved and merged as on the values that they stand for."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from denoisers import predicted, unet
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import visionpeft as vp
from visionpeft.errors import AdapterFileError, OptionError, StateError, TargetError
from visionpeft.surgery.quantized import in_full, is_quantized

pytest.importorskip("torchao", reason="the extra `quant` is not installed")
FORMS = ("int8", "int4")
METHODS = ("lora", "dora", "salt", "cp_lora", "flora")
OPTIONS = {"cp_lora": {"rank": 4}, "flora": {"rank": 2}}


def vit() -> nn.Module:
    import timm

    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 5}
    return timm.create_model("vit_tiny_patch16_224", pretrained=False, **sizes).eval()


def images() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def in_full_of(model: nn.Module) -> nn.Module:
    """A copy whose weights are plain, of the same values."""
    found = copy.deepcopy(model)
    assert vp.dequantize(found) > 0
    assert not any(map(is_quantized, found.parameters()))
    return found


def stirred(model: nn.Module, method: str = "lora", targets: tuple[str, ...] = ("linear",)) -> nn.Module:
    """Adapted with factors that do something."""
    vp.adapt(model, method, list(targets), generator=torch.Generator().manual_seed(2), **OPTIONS.get(method, {}))
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for factor in vp.adapter_parameters(model).values():
            factor.add_(0.05 * torch.randn(factor.shape, generator=random))
    return model.eval()


def close(found: Tensor, wanted: Tensor) -> bool:
    return bool((found - wanted).abs().max() <= 2e-5 * wanted.abs().max().clamp_min(1))


@pytest.mark.parametrize("form", FORMS)
def test_rounding_says_what_it_costs_and_what_it_leaves(form: str):
    model = vit()
    plain = copy.deepcopy(model)
    found = vp.quantize(model, form)
    assert len(found.errors) == 9 and not found.left  # qkv, proj, fc1, fc2 of two blocks, and the head
    assert found.bytes_after < 0.4 * found.bytes_before
    path, error = next(iter(found.errors.items()))
    weight = plain.get_submodule(path).weight
    rounded = in_full(model.get_submodule(path)._parameters["weight"])  # pyright: ignore[reportArgumentType]
    assert error == pytest.approx(((rounded - weight).norm() / weight.norm()).item(), rel=1e-3)  # pyright: ignore
    assert 0 < error < {"int8": 0.01, "int4": 0.15}[form]
    assert form in str(found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS)
def test_adapters_answer_and_learn_as_on_the_values_in_full(form: str, method: str):
    model = vit()
    vp.quantize(model, form)
    stirred(model, method)
    full = in_full_of(model)
    assert close(model(images()), full(images()))
    gradients = []
    for network in (model, full):
        network.zero_grad()
        network(images()).square().sum().backward()
        gradients.append([p.grad for p in vp.adapter_parameters(network).values()])
    assert all(close(*pair) for pair in zip(*gradients, strict=True))
    assert not any(p.requires_grad for p in model.parameters() if is_quantized(p))


def test_a_denoiser_too_with_what_it_reads_and_its_convolutions():
    model = unet(block_out_channels=(32, 64), cross_attention_dim=32)
    found = vp.quantize(model, "int4")
    assert found.errors and all("conv" not in path for path in found.errors)
    stirred(model, "lora", ("linear", "conv.3x3"))
    assert close(predicted(model), predicted(in_full_of(model)))


def test_training_moves_the_factors_and_not_a_bit_of_the_base():
    model = vit()
    vp.quantize(model, "int8", targets=["blocks"])
    vp.adapt(model, "lora", ["attn.qkv", "mlp.up"], train_also=["head"], example=images())
    before = {n: in_full(p).clone() for n, p in model.named_parameters() if is_quantized(p)}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=1e-2), []
    for _ in range(20):
        loss = nn.functional.cross_entropy(model(images()), torch.tensor([0, 3]))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.1 * losses[0]
    assert all(torch.equal(before[n], in_full(p)) for n, p in model.named_parameters() if is_quantized(p))


def test_backward_keeps_the_few_bits_and_not_the_values():
    model = nn.Sequential(nn.Linear(64, 96, bias=False))
    vp.quantize(model, "int8")
    vp.adapt(model, "lora", rank=2)
    kept: list[Tensor] = []
    with saved_tensors_hooks(lambda tensor: (kept.append(tensor), tensor)[1], lambda tensor: tensor):
        model(torch.ones(1, 64, requires_grad=True))
    assert any(map(is_quantized, kept))
    assert not any(tensor.numel() >= 64 * 96 for tensor in kept if not is_quantized(tensor))


def test_merging_is_refused_or_says_what_rounding_again_costs():
    model = vit()
    vp.quantize(model, "int8")
    stirred(model)
    wanted = model(images())
    held = {n: p for n, p in model.named_parameters() if is_quantized(p)}
    with pytest.raises(StateError, match=r"9 weights are in few bits .*quantized='full'.*quantized='round'"):
        vp.merge(model)
    assert vp.merge(model, quantized="full") == {}
    assert close(model(images()), wanted)
    vp.unmerge(model)
    assert all(p is held[n] for n, p in model.named_parameters() if n in held)
    errors = vp.merge(model, quantized="round")
    assert len(errors) == 9 and all(0 < error < 0.01 for error in errors.values())
    assert sum(map(is_quantized, model.parameters())) == 9
    assert 0 < (model(images()) - wanted).abs().max() < 0.05 * wanted.abs().max()
    with pytest.raises(OptionError, match=r"quantized = 'again'\. Known: full, refuse, round"):
        vp.merge(vit(), quantized="again")  # pyright: ignore[reportArgumentType]


def test_an_adapter_knows_the_rounded_base(tmp_path: Path):
    model, plain = vit(), vit()
    vp.quantize(model, "int8")
    vp.save(stirred(model), tmp_path)
    other = vit()
    vp.quantize(other, "int8")
    vp.load(other, tmp_path)
    assert torch.equal(other(images()), model(images()))
    with pytest.raises(AdapterFileError, match="another base"):
        vp.load(plain, tmp_path)


def test_what_cannot_be_is_refused_before_anything_changes():
    model = vit()
    for call, error, message in (
        (lambda: vp.quantize(model, "int2"), OptionError, "form = 'int2'.*'int"),
        (lambda: vp.quantize(model, targets=["blokcs"]), TargetError, "blokcs"),
        (lambda: vp.quantize(nn.Conv2d(3, 3, 3)), TargetError, "no Linear can be held"),
        (lambda: vp.quantize(nn.Linear(20, 8), "int4"), TargetError, "groups of 32"),
    ):
        with pytest.raises(error, match=message):
            call()
    assert not any(map(is_quantized, model.parameters()))
    vp.quantize(model)
    with pytest.raises(TargetError, match="shall train whole holds weights in few bits"):
        vp.adapt(model, "lora", ["attn.qkv"], train_also=["head"])
    vp.adapt(model, "lora", ["attn.qkv"])
    with pytest.raises(StateError, match="quantize it first"):
        vp.quantize(model)
