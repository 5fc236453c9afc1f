"""Where a CLIP's weights come from: files of every form, files of something else, configurations, tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from clips import CLIPS, answers, clip, example, written
from safetensors.torch import save_file
from torch import Tensor

from visionpeft import backbones
from visionpeft.backbones.clip_text import tokenizer_for
from visionpeft.backbones.clip_weights import architecture
from visionpeft.errors import AdapterFileError, OptionError, UnknownNameError, UserError


def load(kind: str, folder: Path, pretrained: Any, **options: Any) -> backbones.Backbone:
    return backbones.load(
        f"open_clip/{kind}", pretrained=pretrained, config=str(written(kind, folder)), **{"image_size": None, **options}
    )


def equal(model: torch.nn.Module, state: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], value) for key, value in state.items())


@pytest.mark.parametrize("kind", ["vit", "siglip", "timm-bert"])
@pytest.mark.parametrize("form", ["bare", "training", "safetensors"])
def test_files_of_open_clip(kind: str, form: str, tmp_path: Path):
    state = clip(kind, tmp_path, seed=5).model.state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(state, path)
    else:
        prefixed = {f"module.{key}": value for key, value in state.items()}
        torch.save(state if form == "bare" else {"epoch": 3, "name": "run", "state_dict": prefixed}, path)
    backbone = load(kind, tmp_path, str(path))
    assert equal(backbone.model, state)
    assert backbone.notes == (f"{len(state)} of {len(state)} tensors loaded from {path}",)


def test_the_older_form_of_a_checkpoint_fits_the_newer_class(tmp_path: Path):
    """Text tower beside the image tower, or in a module of its own."""
    plain = clip("vit", tmp_path)
    save_file(plain.model.state_dict(), tmp_path / "w.safetensors")
    newer = load("vit", tmp_path, str(tmp_path / "w.safetensors"), force_custom_text=True)
    assert type(newer.model).__name__ == "CustomTextCLIP"
    inputs = example(plain)
    pairs = zip(answers(newer.model.eval(), inputs), answers(plain.model, inputs), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("kind", "size", "table"),
    [("vit", 64, "visual.positional_embedding"), ("siglip", 96, "visual.trunk.pos_embed")],
)
def test_position_tables_are_resampled(kind: str, size: int, table: str, tmp_path: Path):
    state = clip(kind, tmp_path, seed=5).model.state_dict()
    save_file(state, tmp_path / "w.safetensors")
    backbone = load(kind, tmp_path, str(tmp_path / "w.safetensors"), image_size=size)
    own = backbone.model.state_dict()
    assert backbone.input.size == size
    assert own[table].shape != state[table].shape
    assert all(torch.equal(own[key], value) for key, value in state.items() if key != table)
    answers(backbone.model.eval(), example(backbone))


def test_a_program_is_refused(tmp_path: Path):
    """OpenAI distributes CLIP as TorchScript archives."""
    path = tmp_path / "ViT-B-16.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(AdapterFileError, match=r"TorchScript archive.*torch\.jit\.load\('ViT-B-16\.pt'\)\.state_dict"):
        load("vit", tmp_path, str(path))


def test_weights_of_openai_want_their_activation(tmp_path: Path):
    state = clip("vit", tmp_path, seed=5).model.state_dict()
    numbers = {"input_resolution": 32, "context_length": 8, "vocab_size": 50}
    path = tmp_path / "w.pt"
    torch.save({**state, **{key: torch.tensor(value) for key, value in numbers.items()}}, path)
    with pytest.raises(UserError, match="made with QuickGELU: take open_clip/vit-quickgelu"):
        load("vit", tmp_path, str(path))
    assert equal(load("vit", tmp_path, str(path), force_quick_gelu=True).model, state)


def test_another_architecture_is_named(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    other = json.loads(json.dumps(CLIPS["vit"]))
    other["vision_cfg"] |= {"width": 32, "layers": 2, "patch_size": 8}
    other["text_cfg"] |= {"vocab_size": 60}
    (tmp_path / "other.json").write_text(json.dumps(other))
    model = backbones.load("open_clip/other", pretrained=False, config=str(tmp_path / "other.json")).model
    save_file(model.state_dict(), path)
    with pytest.raises(AdapterFileError) as caught:
        load("vit", tmp_path, str(path))
    for part in (
        "blocks of the image tower is 2 in the file, 3 in the model",
        "width of the image tower is 32 in the file, 48 in the model",
        "patch size is 8 in the file, 16 in the model",
        "vocabulary is 60 in the file, 50 in the model",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("kind", CLIPS)
def test_the_towers_of_another_kind_are_named(kind: str, tmp_path: Path):
    path = tmp_path / "w.safetensors"
    save_file(clip(kind, tmp_path).model.state_dict(), path)
    other = "resnet" if kind != "resnet" else "vit"
    with pytest.raises(AdapterFileError, match=r"another architecture: image tower is a .* in the file, a"):
        load(other, tmp_path, str(path))


def test_what_is_no_clip_at_all(tmp_path: Path):
    save_file({"weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(AdapterFileError, match=r"does not fit CLIP: \d+ of \d+ tensors are missing"):
        load("vit", tmp_path, str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
    ("name", "blocks", "width", "patch"),
    [("ViT-L-14", 24, 1024, 14), ("ViT-B-16-SigLIP", 12, 768, 16), ("RN50", 16, 32, 3)],
)
def test_what_the_names_of_published_models_tell(name: str, blocks: int, width: int, patch: int):
    model = backbones.load(f"open_clip/{name}", pretrained=False, device="meta").model
    facts = architecture(model.state_dict())
    assert facts["blocks of the image tower"] == blocks
    assert facts["width of the image tower"] == width
    assert facts["patch size"] == patch
    assert facts["blocks of the text tower"] == 12


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("ViT-B16", {}, UnknownNameError, "unknown open_clip model 'ViT-B16'.*'ViT-B-16'"),
        ("clip-smal", {}, UnknownNameError, "Did you mean 'clip-small'"),
        ("ViT-B-32", {"pretrained": "package"}, OptionError, "'package' exists for open_clip/clip-small only"),
        ("clip-small", {"pretrained": True}, OptionError, "no published weights: give pretrained 'package'"),
        (
            "ViT-B-32",
            {"pretrained": "laion2b"},
            AdapterFileError,
            "there is no weights file laion2b, nor a tag.*Did you mean 'laion2b_e16'",
        ),
        ("ViT-B-32", {"image_size": 200}, OptionError, "image_size: 200 .*ViT-B-32: give a multiple of 32 pixels"),
        ("RN50", {"image_size": 100}, OptionError, "image_size: 100 .*RN50: give a multiple of 32 pixels"),
        ("x", {"config": "no/such.json"}, OptionError, r"config = 'no/such\.json' cannot be read"),
        ("roberta-ViT-B-32", {}, UserError, "text tower 'roberta-base'.*hub.*config"),
    ],
)
def test_wrong_calls(name: str, options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=f"(?s){message}"):
        backbones.load(f"open_clip/{name}", **{"pretrained": False, **options})


@pytest.mark.parametrize(("content", "message"), [("{", "cannot be read"), ("[1]", "no 'embed_dim'")])
def test_a_file_that_is_no_configuration(content: str, message: str, tmp_path: Path):
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(OptionError, match=message):
        backbones.load("open_clip/x", pretrained=False, config=str(tmp_path / "c.json"))


def test_a_hub_folder_on_this_disk(tmp_path: Path):
    """What ``hf-hub:`` downloads, read by open_clip's own code."""
    state = clip("vit", tmp_path, seed=5).model.state_dict()
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIPS["vit"], "preprocess_cfg": {}}))
    save_file(state, folder / "open_clip_model.safetensors")
    backbone = backbones.load(f"open_clip/local-dir:{folder}", pretrained=True)
    assert equal(backbone.model, state)
    assert not equal(backbones.load(f"open_clip/local-dir:{folder}", pretrained=False).model, state)


def test_tokens_are_those_of_open_clip():
    texts = ["a photo of a cat", "two dogs!"]
    tokens = tokenizer_for("open_clip/ViT-B-16")(texts)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, open_clip.tokenize(texts))
    assert tokenizer_for("coca_ViT-B-32")(texts).shape == (2, 76)
    assert tokenizer_for("ViT-B-16", {"force_context_length": 16})(texts).shape == (2, 16)
    assert tokenizer_for("ViT-B-16")([]).shape == (0, 77)


def test_a_long_text_is_cut_and_said_to_be():
    with pytest.warns(UserWarning, match="1 of 2 texts have more than the 12 tokens.*has 14 and loses 'eleven twelve'"):
        numbers = "one two three four five six seven eight nine ten eleven twelve"
        tokenizer_for("ViT-B-16", {"force_context_length": 12})(["cat", numbers])


def test_a_tokenizer_of_the_hub_out_of_reach():
    with pytest.raises(
        UserError, match=r"(?s)the tokenizer 'timm/ViT-B-16-SigLIP' could not be loaded: .*hf_tokenizer_n"
    ):
        tokenizer_for("ViT-B-16-SigLIP")


def test_clip_small_on_meta():
    backbone = backbones.load("open_clip/clip-small", pretrained=False, image_size=96, device="meta")
    image, text, _ = backbone.model(**backbone.example_input())
    assert image.shape == text.shape == (1, 256)
    assert backbone.input == backbones.InputSpec(96, 3, (0.5,) * 3, (0.5,) * 3, "bicubic")


@pytest.mark.slow
def test_clip_small_of_two_packages():
    """Real towers: texts of one meaning lie nearer than others, already before the projections are aligned."""
    model: Any = backbones.load("open_clip/clip-small", pretrained="package", image_size=96).model.eval()
    tokens = tokenizer_for("clip-small")(["a photo of a cat", "a picture of a kitten", "the stock market fell"])
    assert tokens.shape == (3, 32)
    with torch.no_grad():
        cat, kitten, market = model.encode_text(tokens, normalize=True)
        assert cat @ kitten > cat @ market + 0.2
        assert model.encode_image(torch.randn(2, 3, 96, 96)).shape == (2, 256)
