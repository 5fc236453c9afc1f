"""Files that other tools wrote, read into adapters of ours: the network must say what it says under the tool."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from denoisers import LAYERS, adapted, flux, kohya, loaded, off, predicted, unet
from safetensors.torch import load_file, save_file
from torch import nn

import visionpeft as vp
from visionpeft.errors import AdapterFileError
from visionpeft.export.exchange import convert, read, write


def noisy(parameters: dict[str, nn.Parameter], std: float = 0.2) -> None:
    """Values that do something, whatever the tool starts from."""
    random = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in parameters.items():
            noise = torch.randn(parameter.shape, generator=random)
            gain = "magnitude" in name or "dora_scale" in name
            parameter.copy_(parameter * (1 + 0.2 * noise) if gain else parameter + std * noise)


def by_lycoris(folder: Path, algo: str, **options: object) -> tuple[Path, torch.Tensor]:
    """A file that LyCORIS saves, and what the network says under LyCORIS itself."""
    from lycoris import LycorisNetwork, create_lycoris, create_lycoris_from_weights

    LycorisNetwork.apply_preset({"target_module": ["Linear", "Conv2d"], "target_name": []})
    network = create_lycoris(unet(), 1.0, 2, 1.5, conv_dim=2, conv_alpha=3.0, algo=algo, **options)
    file = folder / "lycoris.safetensors"
    network.apply_to()
    noisy(dict(network.named_parameters()))
    network.save_weights(str(file), torch.float32, {})
    model = unet()
    create_lycoris_from_weights(1.0, str(file), model)[0].apply_to()
    return file, predicted(model)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algo", "options", "method"),
    [
        ("locon", {}, "lora"),
        ("locon", {"use_tucker": True}, "lora"),
        ("locon", {"dora_wd": True}, "dora"),
        ("loha", {}, None),
        ("loha", {"use_tucker": True}, None),
        ("loha", {"dora_wd": True}, "dora"),
        ("lokr", {"factor": 2}, None),
        ("lokr", {"full_matrix": True}, None),
        ("full", {}, None),
    ],
)
def test_lycoris(tmp_path: Path, algo: str, options: dict, method: str | None):
    file, wanted = by_lycoris(tmp_path, algo, **options)
    done = read(file, unet(), tmp_path / "ours", component="unet", drop=algo == "full")
    assert method in (None, done.method) and done.error < 1e-6
    if algo == "full":  # LyCORIS trains biases with it, which an adapter does not change
        assert done.dropped and all(name.endswith("(bias)") for name in done.dropped)
        wanted = predicted(_with_weights_only(file))
    assert off(predicted(loaded(unet(), done.path)), wanted, predicted(unet())) < 1e-4


def _with_weights_only(file: Path) -> nn.Module:
    model = unet()
    for key, tensor in load_file(file).items():
        for path, module in model.named_modules():
            if key == f"lycoris_{path.replace('.', '_')}.diff":
                module.weight.data += tensor.reshape(module.weight.shape)
    return model


def peft_configs() -> dict[str, Callable]:
    from peft import LoHaConfig, LoKrConfig, LoraConfig

    return {
        "lora": lambda: LoraConfig(r=4, lora_alpha=6, target_modules=LAYERS, rank_pattern={"conv_in": 2}),
        "rslora": lambda: LoraConfig(r=4, lora_alpha=6, target_modules=LAYERS, use_rslora=True),
        "alphas": lambda: LoraConfig(r=4, lora_alpha=6, target_modules=LAYERS, alpha_pattern={"attn2.to_k": 1}),
        "dora": lambda: LoraConfig(r=3, lora_alpha=6, target_modules=LAYERS, use_dora=True),
        "loha": lambda: LoHaConfig(r=2, alpha=3, target_modules=LAYERS, use_effective_conv2d=True),
        "lokr": lambda: LoKrConfig(r=2, alpha=3, target_modules=LAYERS, decompose_both=True),
    }


@pytest.mark.parametrize("name", ["lora", "rslora", "alphas", "dora", "loha", "lokr"])
def test_peft(tmp_path: Path, name: str):
    from peft import get_peft_model

    model = get_peft_model(unet(), peft_configs()[name]())
    noisy({key: p for key, p in model.named_parameters() if p.requires_grad})
    model.save_pretrained(str(tmp_path / "peft"))
    wanted = predicted(model.base_model.model.eval())
    done = read(tmp_path / "peft", unet(), tmp_path / "ours", component="unet")
    assert len(done.layers) == len(LAYERS) and done.error < 1e-6
    assert off(predicted(loaded(unet(), done.path)), wanted, predicted(unet())) < 1e-4


def test_what_diffusers_saves(tmp_path: Path):
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    model = unet()
    model.add_adapter(LoraConfig(r=4, lora_alpha=8, target_modules=LAYERS))
    noisy({key: p for key, p in model.named_parameters() if "lora_" in key})
    wanted = predicted(model)
    state = get_peft_model_state_dict(model)
    config = model.peft_config["default"].to_dict()
    StableDiffusionPipeline.save_lora_weights(tmp_path, state, unet_lora_adapter_metadata=config)
    done = read(tmp_path, unet(), tmp_path / "ours", component="unet")
    assert done.method == "lora" and done.options == {"rank": 4, "alpha": 8.0}
    assert off(predicted(loaded(unet(), done.path)), wanted, predicted(unet())) < 1e-4


def folded(state: dict[str, torch.Tensor], names: dict[str, str]) -> nn.Module:
    model = unet()
    for path, name in names.items():
        down, up, alpha = (state[f"{name}.{end}"] for end in ("lora_down.weight", "lora_up.weight", "alpha"))
        delta = alpha / len(down) * (up.flatten(1) @ down.flatten(1))
        weight = model.get_submodule(path).weight
        weight.data += delta.reshape(weight.shape)
    return model


def test_kohya_with_ranks_and_alphas_that_differ(tmp_path: Path):
    names = {path: "lora_unet_" + path.replace(".", "_") for path in LAYERS}
    state = kohya(names)
    text = {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.zeros(2, 4)}
    save_file(state | text, tmp_path / "a.safetensors")
    with pytest.raises(AdapterFileError, match=r"fc1' belongs to a text encoder.*--drop"):
        read(tmp_path / "a.safetensors", unet(), tmp_path / "ours", component="unet")
    done = read(tmp_path / "a.safetensors", unet(), tmp_path / "ours", component="unet", drop=True)
    assert done.method == "lora" and done.options["rank"] == 4 and len(done.dropped) == 1
    ours = loaded(unet(), done.path)
    assert off(predicted(ours), predicted(folded(state, names)), predicted(unet())) < 1e-4
    trained = ours.get_submodule(LAYERS[0]).adapters.default
    assert trained.A.any(dim=(1, 2, 3)).all() and not trained.B[:, 2:].any()  # what fills the rank up can still learn


def test_names_of_the_network_as_first_published(tmp_path: Path):
    """``input_blocks_1_1_…`` is what kohya's scripts write for SDXL; here for one block of each kind."""
    attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    names = {
        attention: "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k",
        "down_blocks.0.resnets.0.conv1": "lora_unet_input_blocks_1_0_in_layers_2",
        "mid_block.resnets.0.conv2": "lora_unet_middle_block_0_out_layers_3",
    }
    sizes = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 32,
    }
    state = kohya(names)
    save_file(state, tmp_path / "a.safetensors")
    done = read(tmp_path / "a.safetensors", unet(**sizes), tmp_path / "ours", component="unet")
    assert {fit.path for fit in done.layers} == names.keys()
    ours = loaded(unet(**sizes), done.path)
    for path, name in names.items():
        down, up, alpha = (state[f"{name}.{end}"] for end in ("lora_down.weight", "lora_up.weight", "alpha"))
        delta = alpha / len(down) * (up.flatten(1) @ down.flatten(1))
        found = ours.get_submodule(path).weight - ours.get_submodule(path)._parameters["weight"]
        assert torch.allclose(found.flatten(1), delta, atol=1e-6)


@pytest.mark.slow
def test_flux_as_kohya_writes_it(tmp_path: Path):
    name, path = "lora_unet_single_blocks_0_linear2", "single_transformer_blocks.0.proj_out"
    weight = flux().get_submodule(path).weight
    down, up = torch.randn(2, weight.shape[1]), torch.randn(weight.shape[0], 2)
    state = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(1.0)}
    save_file(state, tmp_path / "a.safetensors")
    done = read(tmp_path / "a.safetensors", flux(), tmp_path / "ours", component="transformer")
    ours = loaded(flux(), done.path).get_submodule(path)
    assert torch.allclose(ours.weight - ours._parameters["weight"], 0.5 * up @ down, atol=1e-5)


@pytest.mark.parametrize("form", ["kohya", "peft"])
def test_from_one_tool_to_another(tmp_path: Path, form: str):
    names = {path: "lora_unet_" + path.replace(".", "_") for path in LAYERS}
    save_file(kohya(names), tmp_path / "a.safetensors", {"ss_base_model_version": "sd_v1"})
    output = tmp_path / ("b" if form == "peft" else "b.safetensors")
    done = convert(tmp_path / "a.safetensors", form, output, unet(), component="unet")
    assert done.exact and sorted(fit.rank or 0 for fit in done.layers) == [2, 3, 4] and done.match.effect > 0


def test_ours_becomes_lora(tmp_path: Path):
    folder = vp.save(adapted(unet(), "cp_lora", ["conv_in", "*.to_k"]), tmp_path / "cp")
    done = convert(folder, "visionpeft", tmp_path / "lora", unet(), component="unet", rank=1)
    assert done.method == "lora" and done.options["rank"] == 1 and 0 < done.error < 1
    exact = convert(folder, "visionpeft", tmp_path / "lora", unet(), component="unet")
    wanted = predicted(loaded(unet(), folder))
    assert off(predicted(loaded(unet(), exact.path)), wanted, predicted(unet())) < 1e-4


def test_what_was_trained_beside_is_refused_and_leaves_the_network_alone(tmp_path: Path):
    model = adapted(unet(), "lora", ["conv_in"], train_also=["conv_norm_out"])
    with torch.no_grad():
        model.conv_norm_out.weight += 1
    folder, plain = vp.save(model, tmp_path / "ours"), unet()
    before = predicted(plain)
    with pytest.raises(AdapterFileError, match=r"conv_norm_out.weight' trained whole beside.*--drop"):
        convert(folder, "visionpeft", tmp_path / "lora", plain, component="unet")
    done = convert(folder, "visionpeft", tmp_path / "lora", plain, component="unet", drop=True)
    assert done.dropped.keys() == {"conv_norm_out.weight", "conv_norm_out.bias"}
    assert torch.equal(predicted(plain), before)


def test_what_the_file_says_goes_with_it(tmp_path: Path):
    says = {"recipe": "emoji-ink", "base": "run:small-sd", "base_licence": "apache-2.0"}
    model = adapted(unet(), "lora", ["conv_in"])
    write("kohya", tmp_path / "a.safetensors", model, component="unet", metadata=says)
    folder = read(tmp_path / "a.safetensors", unet(), tmp_path / "ours", component="unet").path
    from safetensors import safe_open

    with safe_open(folder / "adapter.safetensors", "pt") as content:
        found = json.loads(content.metadata()["visionpeft"])
    assert found["converted_from"] == "kohya" and says.items() <= found.items()
