"""Adapters written for other tools: each file is loaded here by the tool itself, and says what the adapter does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from denoisers import OPTIONS, adapted, dit, flux, off, predicted, sd3, unconditional, unet
from safetensors import safe_open
from torch import nn

import visionpeft as vp
from visionpeft.errors import OptionError, SiteError, StateError, UserError
from visionpeft.export.exchange import FORMS, deltas, write
from visionpeft.export.exchange.changes import changes
from visionpeft.export.exchange.lowrank import Budget, fitted
from visionpeft.export.exchange.twins import plain_twin
from visionpeft.export.parity import ParityError

SOME = ["conv_in", "time_embedding.linear_1", "*.attentions.0.proj_in", "*.attn2.to_k", "*.resnets.0.conv1"]


def place(folder: Path, form: str) -> Path:
    return folder / (form if form == "peft" else f"{form}.safetensors")


@pytest.fixture(scope="module")
def lora() -> nn.Module:
    return adapted(unet(), "lora", SOME)


def test_deltas_are_what_merging_adds(lora: nn.Module):
    base = {name: p.clone() for name, p in plain_twin(lora).named_parameters()}
    found = {path: site.to_native(delta) for path, site, delta in deltas(lora)}
    vp.merge(lora)
    try:
        for path, delta in found.items():
            added = lora.get_submodule(path).weight.double() - base[f"{path}.weight"].double()
            assert torch.allclose(added, delta, atol=1e-6) and delta.abs().max() > 1e-3
        with pytest.raises(StateError, match="call unmerge first"):
            next(deltas(lora))
    finally:
        vp.unmerge(lora)


def test_slices_of_a_fused_projection_are_summed_into_one_change():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(6, 12)

    for method in ("lora", "dora", "salt"):
        model = adapted(Block(), method, ["qkv[q,v]"], rank=2)
        before = model.qkv._parameters["weight"].clone()
        ((path, _, delta),) = deltas(model)
        vp.merge(model)
        assert path == "qkv" and torch.allclose(model.qkv.weight.double() - before.double(), delta, atol=1e-6)
        assert not delta[4:8].any() and delta[:4].any() and delta[8:].any()


@pytest.mark.parametrize("form", FORMS)
def test_lora_keeps_its_factors(lora: nn.Module, tmp_path: Path, form: str):
    done = write(form, place(tmp_path, form), lora, component="unet")
    assert done.exact and done.error == 0 and {fit.rank for fit in done.layers} == {3}
    assert done.match.difference < 1e-4 * done.match.effect and done.match.layers == len(done.layers)
    file = done.path / "adapter_model.safetensors" if form == "peft" else done.path
    with safe_open(file, "pt") as content:
        names = set(content.keys())
        about = json.loads(content.metadata()["visionpeft"])
        down = content.get_tensor(next(name for name in names if "conv_in" in name and name.endswith(DOWN[form])))
    assert torch.equal(down, vp.adapter_state_dict(lora)["conv_in.A"])
    assert about["method"] == "lora" and about["options"]["alpha"] == 2.0 and len(about["base_fingerprint"]) == 16


DOWN = dict.fromkeys(("diffusers-lora", "peft"), "lora_A.weight") | dict.fromkeys(("kohya", "lycoris"), "down.weight")


def test_the_pipeline_itself_loads_the_file(lora: nn.Module, tmp_path: Path):
    """Not through our check: as a user of diffusers would."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    path = write("diffusers-lora", tmp_path / "a.safetensors", lora, component="unet").path
    parts = {"vae": None, "text_encoder": None, "tokenizer": None, "safety_checker": None, "feature_extractor": None}
    pipe = StableDiffusionPipeline(**parts, unet=unet(), scheduler=DDIMScheduler(), requires_safety_checker=False)
    base, wanted = predicted(pipe.unet), predicted(lora)
    pipe.load_lora_weights(str(tmp_path), weight_name="a.safetensors")
    assert off(predicted(pipe.unet), wanted, base) < 1e-4
    pipe.unload_lora_weights()
    assert torch.equal(predicted(pipe.unet), base) and path.is_file()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", OPTIONS)
def test_every_method_is_exact_unless_less_is_asked_for(tmp_path: Path, method: str, form: str):
    model = adapted(unet(), method)
    done = write(form, place(tmp_path, form), model, component="unet")
    assert done.exact and done.error < 1e-6 and done.match.difference < 1e-3 * done.match.effect
    less = write(form, place(tmp_path / "less", form), model, component="unet", rank=1)
    assert not less.exact and 0.01 < less.error < 1 and all(fit.rank == 1 for fit in less.layers)
    assert less.bytes < done.bytes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "component", "forms"),
    [
        (dit, "transformer", ["peft", "lycoris"]),
        (sd3, "transformer", ["diffusers-lora", "peft", "lycoris"]),
        (flux, "transformer", ["diffusers-lora", "peft", "lycoris"]),
        (unconditional, "unet", ["peft", "lycoris"]),
    ],
)
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_other_networks(tmp_path: Path, network, component: str, forms: list[str], method: str):
    model = adapted(network(), method)
    for form in forms:
        done = write(form, place(tmp_path, form), model, component=component)
        assert done.exact and done.match.difference < 1e-3 * done.match.effect
    for form in FORMS.keys() - set(forms):
        with pytest.raises(OptionError, match=f"--to {form}"):
            write(form, place(tmp_path, form), model, component=component)


def test_the_truncation_is_the_best_of_its_rank(lora: nn.Module):
    change = changes(adapted(unet(), "flora", ["conv_in"], rank=4))[0]
    values = torch.linalg.svdvals(change.additive().flatten(1))
    for rank in (1, 2, 3):
        kept, fit = fitted(change, Budget(rank=rank))
        missing = (kept.additive() - change.additive()).norm().item()
        assert kept.rank == rank and missing == pytest.approx(values[rank:].norm().item(), rel=1e-4)
        assert fit.error == pytest.approx(missing, rel=1e-4)
    for energy in (0.5, 0.9):
        kept, fit = fitted(change, Budget(energy=energy))
        share = values.square().cumsum(0) / values.square().sum()
        assert share[kept.rank - 1] >= energy and (kept.rank == 1 or share[kept.rank - 2] < energy)
        assert fit.relative**2 <= 1 - energy + 1e-9


@pytest.mark.parametrize("options", [{"rank": 2, "energy": 0.9}, {"rank": 0}, {"energy": 0.0}, {"energy": 1.5}])
def test_what_is_kept_must_make_sense(options: dict):
    with pytest.raises(OptionError, match=next(iter(options))):
        Budget(**options)


def test_what_a_format_cannot_say_is_refused_or_listed(tmp_path: Path):
    """An embedding and a parameter of PixArt's kind, a grouped and a dilated convolution, a norm trained whole."""
    model = adapted(dit(), "lora", ["*.to_q", "*.embedding_table"])
    with pytest.raises(SiteError, match=r"embedding_table: lycoris has no Embedding.*--drop"):
        write("lycoris", tmp_path / "a.safetensors", model, component="transformer")
    done = write("lycoris", tmp_path / "a.safetensors", model, component="transformer", drop=True)
    assert len(done.dropped) == 2 and not done.exact and len(done.layers) == 2
    assert write("peft", tmp_path / "p", model, component="transformer").exact  # it knows embeddings
    model = unet()
    model.conv_in = nn.Conv2d(4, 8, 3, padding=1, groups=2)
    model.conv_out = nn.Conv2d(8, 4, 3, padding=2, dilation=2)
    vp.adapt(model, "lora", ["conv_in", "conv_out", "*.attn2.to_k"], train_also=["conv_norm_out"], rank=2)
    done = write("kohya", tmp_path / "k.safetensors", model, component="unet", drop=True)
    reasons = " ".join(done.dropped.values())
    assert done.dropped.keys() == {"conv_in", "conv_out", "conv_norm_out.weight", "conv_norm_out.bias"}
    assert "groups" in reasons and "dilated" in reasons and "trained whole" in reasons
    said = write("lycoris", tmp_path / "l.safetensors", model, component="unet", drop=True).dropped
    assert said.keys() == {"conv_norm_out.weight", "conv_norm_out.bias"}  # groups and dilation are no matter there


def test_a_block_method_is_no_change_of_weights(tmp_path: Path):
    model = dit()
    vp.adapt(model, "adaptertune", ["transformer_blocks.0"], rank=2)
    with pytest.raises(StateError, match="adaptertune acts on activations"):
        write("peft", tmp_path / "p", model, component="transformer")


def test_a_tool_that_says_otherwise_leaves_nothing_behind(lora: nn.Module, tmp_path: Path, monkeypatch):
    from visionpeft.export.exchange import encode

    real = encode._pointwise
    monkeypatch.setattr(encode, "_pointwise", lambda up, change: real(1.05 * up, change))
    for form in FORMS:
        with pytest.raises(ParityError, match="otherwise: off by"):
            write(form, place(tmp_path, form), lora, component="unet")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_survives_a_failure(lora: nn.Module, tmp_path: Path, monkeypatch):
    path = write("kohya", tmp_path / "a.safetensors", lora, component="unet").path
    before = path.read_bytes()
    monkeypatch.setattr("visionpeft.export.exchange.tools._by_diffusers", lambda path, denoiser, component: denoiser)
    with pytest.raises(ParityError, match="off by 100"):
        write("kohya", path, lora, component="unet", rank=1)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_the_model_is_left_as_it_is(lora: nn.Module, tmp_path: Path):
    before = predicted(lora)
    trains = {name for name, p in lora.named_parameters() if p.requires_grad}
    classes = [type(module) for module in lora.modules()]
    write("lycoris", tmp_path / "a.safetensors", lora, component="unet")
    assert torch.equal(predicted(lora), before) and [type(module) for module in lora.modules()] == classes
    assert {name for name, p in lora.named_parameters() if p.requires_grad} == trains


@pytest.mark.parametrize(
    ("form", "name", "message"),
    [
        ("lora", "a.safetensors", "unknown exchange format 'lora'"),
        ("kohya", "a.bin", r"ends in \.safetensors"),
        ("peft", "a.safetensors", "peft is a folder"),
    ],
)
def test_bad_requests(lora: nn.Module, tmp_path: Path, form: str, name: str, message: str):
    with pytest.raises(UserError, match=message):
        write(form, tmp_path / name, lora, component="unet")


def test_one_of_several_adapters_is_written(tmp_path: Path):
    model = adapted(unet(), "lora", ["*.attn2.to_k"])
    vp.adapt(model, "lora", ["conv_in"], "other", rank=2)
    vp.activate(model, {"default": 0.5, "other": 1.0})
    done = write("diffusers-lora", tmp_path / "a.safetensors", model, component="unet")
    assert {fit.path.rpartition(".")[2] for fit in done.layers} == {"to_k"} and done.exact
    assert vp.active(model) == {"default": 0.5, "other": 1.0}
