"""timm backbones: real weights, local files, and files that are damaged, foreign or dangerous."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from visionpeft import backbones
from visionpeft.backbones.efficientnet_package import package_state
from visionpeft.data.classification import ClassificationData
from visionpeft.errors import AdapterFileError, OptionError, TargetError, UnknownNameError, UserError

LITE, RESNET, VIT = "timm/tf_efficientnet_lite0", "timm/test_resnet.r160_in1k", "timm/test_vit"


def saved(name: str, path: Path, **options: object) -> dict[str, torch.Tensor]:
    """Save random weights of a small model; ``.safetensors`` or ``torch.save`` by the suffix."""
    torch.manual_seed(1)
    state = timm.create_model(name.removeprefix("timm/"), **options).state_dict()  # pyright: ignore
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return state


def test_package_weights_fit_strictly() -> None:
    """Every tensor of the package has its place in timm's model, and the other way round."""
    model = timm.create_model("tf_efficientnet_lite0")
    result = model.load_state_dict(package_state(), strict=True)
    assert not result.missing_keys
    assert not result.unexpected_keys


def test_package_weights_with_a_new_head() -> None:
    backbone = backbones.load(LITE, pretrained="package", num_classes=10, image_size=64)
    assert "294 of 296 tensors loaded" in backbone.notes[0]
    assert "not loaded: classifier.weight, classifier.bias" in backbone.notes[0]
    assert backbone.input == backbones.InputSpec(64, 3, (0.5,) * 3, (0.5,) * 3, "bicubic")
    state = package_state()
    for key, value in backbone.model.state_dict().items():
        assert key.startswith("classifier") or torch.equal(value, state[key]), key


def centroid_accuracy(pretrained: bool | str, data: ClassificationData) -> float:
    """Nearest centroid on frozen features: 5 shots a class, no training at all."""
    torch.manual_seed(0)
    model = backbones.load(LITE, pretrained=pretrained, image_size=64).model.eval()
    found = {}
    with torch.no_grad():
        for part in ("train", "test"):
            pairs = [(backbones.features_of(model, x), y) for x, y in data.ordered(part)]
            found[part] = [torch.cat(column) for column in zip(*pairs, strict=True)]
    (features, labels), (queries, answers) = found["train"], found["test"]
    centre = features.mean(0)
    unit = nn.functional.normalize
    centroids = torch.stack([unit(features[labels == c] - centre, dim=1).mean(0) for c in range(10)])
    nearest = torch.cdist(unit(queries - centre, dim=1), centroids).argmin(1)
    return (nearest == answers).float().mean().item()


def test_real_weights_see_more_than_random_ones() -> None:
    data = ClassificationData("mnist", shots=5, test_shots=10, input=backbones.InputSpec(64))
    data.setup()
    real, random = centroid_accuracy("package", data), centroid_accuracy(False, data)
    assert real > random + 0.1


def test_head_and_features() -> None:
    model = backbones.load(LITE, pretrained=False, num_classes=7).model.eval()
    path, head = backbones.head_of(model)
    assert path == "classifier"
    images = torch.randn(2, 3, 64, 64)
    features = backbones.features_of(model, images)
    assert features.shape == (2, 1280)
    assert torch.allclose(head(features), model(images))


def test_head_and_features_of_a_plain_module() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    images = torch.randn(2, 3, 8, 8)
    assert backbones.head_of(model)[0] == "3"
    assert torch.equal(backbones.features_of(model, images), model[:3](images))


def test_a_model_without_head_says_so() -> None:
    model = backbones.load(RESNET, pretrained=False, num_classes=0).model
    with pytest.raises(TargetError, match="has no classifier"):
        backbones.head_of(model)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_local_files(tmp_path: Path, suffix: str) -> None:
    state = saved(RESNET, tmp_path / f"w{suffix}", num_classes=5)
    backbone = backbones.load(RESNET, pretrained=str(tmp_path / f"w{suffix}"))
    for key, value in backbone.model.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert f"{len(state)} of {len(state)} tensors loaded" in backbone.notes[0]
    assert backbones.head_of(backbone.model)[1].out_features == 5


@pytest.mark.parametrize("wrap", ["state_dict", "model"])
def test_wrapped_checkpoints(tmp_path: Path, wrap: str) -> None:
    state = {f"module.{k}": v for k, v in timm.create_model("test_resnet").state_dict().items()}
    torch.save({wrap: state, "epoch": 3}, tmp_path / "w.pt")
    assert "not loaded" not in backbones.load(RESNET, pretrained=str(tmp_path / "w.pt")).notes[0]


def test_position_tables_are_resampled_to_the_image_size(tmp_path: Path) -> None:
    state = saved(VIT, tmp_path / "w.safetensors", img_size=64)
    backbone = backbones.load(VIT, pretrained=str(tmp_path / "w.safetensors"), image_size=96, num_classes=3)
    table = backbone.model.get_parameter("pos_embed")
    assert table.shape[1] == 1 + 36 != state["pos_embed"].shape[1]
    assert torch.equal(backbone.model.state_dict()["blocks.0.attn.qkv.weight"], state["blocks.0.attn.qkv.weight"])
    assert backbone.model(backbone.example_input()).shape == (1, 3)


def test_a_hub_folder_on_this_disk(tmp_path: Path) -> None:
    """The hub's own file layout, read by timm's own code: what ``pretrained: true`` does with a download."""
    from timm.models import save_for_hf

    torch.manual_seed(3)
    model = timm.create_model("test_resnet", num_classes=4)
    save_for_hf(model, str(tmp_path))
    backbone = backbones.load(f"timm/local-dir:{tmp_path}", pretrained=True)
    for key, value in backbone.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
    assert "from the hub" in backbone.notes[0]


def test_the_hub_out_of_reach_is_a_clear_error() -> None:
    """Tests run with HF_HUB_OFFLINE=1 (conftest)."""
    with pytest.raises(UserError, match=r"could not be fetched from the hub: (.|\n)*give pretrained"):
        backbones.load("timm/resnet18", pretrained=True)


def test_source_of_a_recipe(cache: Path) -> None:
    with pytest.raises(AdapterFileError, match=r"visionpeft run recipes/pretrain/vit-small-fashion\.yaml"):
        backbones.load(VIT, pretrained="run:vit-small-fashion")
    folder = cache / "sources" / "vit-small-fashion"
    folder.mkdir(parents=True)
    state = saved(VIT, folder / "model.safetensors", num_classes=10)
    model = backbones.load(VIT, pretrained="run:vit-small-fashion").model
    assert torch.equal(model.state_dict()["head.weight"], state["head.weight"])
    with pytest.raises(AdapterFileError, match="Did you mean 'vit-small-fashion'"):
        backbones.load(VIT, pretrained="run:vit-smal-fashion")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_of_objects_is_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harmed",))

    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps({"weight": Harm()}))
    with pytest.raises(AdapterFileError, match="pickle"):
        backbones.load(RESNET, pretrained=str(path))
    torch.save({"weight": Harm()}, path)
    with pytest.raises(AdapterFileError, match="could run foreign code"):
        backbones.load(RESNET, pretrained=str(path))
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_truncated_files(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"w{suffix}"
    saved(RESNET, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(AdapterFileError, match="truncated or no weights file"):
        backbones.load(RESNET, pretrained=str(path))


def test_another_architecture(tmp_path: Path) -> None:
    saved(VIT, tmp_path / "w.safetensors")
    with pytest.raises(AdapterFileError, match=r"does not fit ResNet: \d+ of \d+ tensors are missing, such as conv1"):
        backbones.load(RESNET, pretrained=str(tmp_path / "w.safetensors"))


def test_one_tensor_of_another_shape(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet").state_dict()
    key = next(key for key, value in state.items() if value.ndim == 4)
    save_file({**state, key: torch.zeros(1, 1, 1, 1)}, tmp_path / "w.safetensors")
    with pytest.raises(AdapterFileError, match=rf"{key} is \(1, 1, 1, 1\), not"):
        backbones.load(RESNET, pretrained=str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_names_the_tensor(tmp_path: Path, bad: float) -> None:
    state = timm.create_model("test_resnet").state_dict()
    key = list(state)[7]
    state[key] = torch.full_like(state[key].float(), 1.0)
    state[key].view(-1)[0] = bad
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(AdapterFileError, match=rf"{key} holds 1 value\(s\) that are NaN"):
        backbones.load(RESNET, pretrained=str(tmp_path / "w.safetensors"))


def test_a_state_dict_of_something_else(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(AdapterFileError, match="holds no state dict"):
        backbones.load(RESNET, pretrained=str(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"name": "tim/resnet18"}, UnknownNameError, "unknown backbone family 'tim'.*'timm'"),
        ({"name": "resnet18"}, UnknownNameError, "unknown backbone family 'resnet18'"),
        ({"name": "timm/resnet81"}, UnknownNameError, "unknown timm model 'resnet81'.*'resnet"),
        (
            {"name": RESNET, "pretrained": "package"},
            OptionError,
            "'package' exists for timm/tf_efficientnet_lite0 only",
        ),
        ({"name": RESNET, "pretrained": "no/such.pt"}, AdapterFileError, r"there is no weights file no/such\.pt"),
        ({"name": RESNET, "in_chan": 1}, OptionError, "cannot be built with .*in_chan"),
        ({"name": RESNET, "pretrained": True, "device": "meta"}, OptionError, "'meta' holds no weights"),
    ],
)
def test_wrong_calls(call: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        backbones.load(**{"pretrained": False, **call})


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("vit_tiny_patch16_224", 96),
        ("resnet18", 96),
        ("convnext_atto", 96),
        ("efficientnet_b0", 96),
        ("swin_tiny_patch4_window7_224", None),
        ("samvit_base_patch16", 512),
    ],
)
def test_the_models_of_the_coverage_table_on_meta(name: str, size: int | None) -> None:
    backbone = backbones.load(f"timm/{name}", pretrained=False, image_size=size, device="meta")
    assert all(parameter.is_meta for parameter in backbone.model.parameters())
    assert backbone.input.size == (size or 224)
    assert backbone.model(backbone.example_input()).is_meta
    assert backbone.notes == ("random weights",)


def test_another_number_of_channels() -> None:
    backbone = backbones.load(RESNET, pretrained=False, in_chans=1)
    assert backbone.input.channels == len(backbone.input.mean) == 1
    assert backbone.model(backbone.example_input()).shape[0] == 1
