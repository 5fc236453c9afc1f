"""Exports: the artifact says what the adapted model says, or there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import finished, recipe

import visionpeft as vp
from visionpeft.backbones import load
from visionpeft.errors import StateError, UserError
from visionpeft.export import export_run
from visionpeft.export.adapters import merge_adapter
from visionpeft.export.parity import ParityError, compare
from visionpeft.pipeline import run
from visionpeft.runs.finished import open_run


@pytest.fixture(scope="module")
def opened():
    return open_run(finished().folder)


@pytest.fixture(scope="module")
def images(opened) -> torch.Tensor:
    return next(iter(opened.stages.data.test_dataloader()))[0]


@torch.inference_mode()
def logits(model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model.eval()(images)


def test_the_adapter_changes_the_network_it_is_merged_into(opened, images: torch.Tensor):
    model = opened.stages.task.model
    with vp.disable(model):
        plain = logits(model, images)
    assert (logits(model, images) - plain).abs().max() > 1e-3, "or parity would prove nothing"


def test_merged_weights_load_into_plain_timm(opened, images: torch.Tensor, tmp_path: Path):
    import timm

    path, parity = export_run(finished().folder, "merged", tmp_path / "m.safetensors")
    section = opened.recipe.backbone
    plain = timm.create_model(section.name.removeprefix("timm/"), num_classes=10, img_size=16, **section.options)
    plain.load_state_dict(load_file(path), strict=True)
    wanted = logits(opened.stages.task.model, images)
    assert torch.allclose(logits(plain, images), wanted, atol=1e-5) and parity.relative < 1e-5


def test_a_program_runs_with_any_batch_size(opened, images: torch.Tensor, tmp_path: Path):
    path, parity = export_run(finished().folder, "program", tmp_path / "model.pt2")
    program = torch.export.load(path).module()
    assert torch.allclose(program(images[:3]), logits(opened.stages.task.model, images[:3]), atol=1e-5)
    assert parity.images == len(images)


def test_onnx_runs_under_onnxruntime(opened, images: torch.Tensor, tmp_path: Path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    path, _ = export_run(finished().folder, "onnx", tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, {session.get_inputs()[0].name: images[:3].numpy()})[0]
    assert torch.allclose(torch.from_numpy(found), logits(opened.stages.task.model, images[:3]), atol=1e-4)


def test_an_artifact_that_disagrees_is_an_error(opened, images: torch.Tensor):
    model = opened.stages.task.model
    assert compare(model, model, images, "same").difference == 0
    with pytest.raises(ParityError, match="disagrees with the adapted model"):
        compare(model, lambda batch: model(batch) + 0.1, images, "shifted")
    with pytest.raises(ParityError):
        compare(model, lambda batch: model(batch) * torch.nan, images, "broken")


def test_a_method_that_does_not_merge_says_so_and_keeps_its_adapter(tmp_path: Path):
    method = {"name": "adaptertune", "rank": 2}
    made = run(recipe(method=method, targets=["block"]), output=tmp_path / "run", progress=False)
    assert made.merged is None and "cannot be folded into weights" in made.merge_note
    assert made.adapter is not None
    with pytest.raises(StateError, match="cannot be folded"):
        export_run(made.folder, "merged")
    assert export_run(made.folder, "program")[1].relative < 1e-5


def test_full_fine_tuning_leaves_its_weights_instead_of_an_adapter(tmp_path: Path):
    made = run(recipe(method={"name": "full"}, targets=[]), output=tmp_path / "run", progress=False)
    assert made.adapter is None and made.merged is not None
    assert load_file(made.folder / "trained.safetensors").keys() == load_file(made.merged).keys()


def test_a_published_source_is_found_by_name(tmp_path: Path, cache: Path):
    source = recipe(name="my-source", method={"name": "full"}, targets=[], publish=True)
    made = run(source, output=tmp_path / "source", progress=False)
    assert made.merged is not None
    plain = load(
        "timm/vit_tiny_patch16_224", pretrained="run:my-source", image_size=16, **recipe()["backbone"]["options"]
    )
    assert torch.equal(plain.model.state_dict()["head.weight"], load_file(made.merged)["head.weight"])


def base_weights(folder: Path) -> Path:
    """The random base that the tiny run was adapted on, as a file."""
    opened = open_run(finished().folder)
    model = opened.stages.task.model
    vp.remove(model)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "base.safetensors")
    return folder / "base.safetensors"


def test_an_adapter_folder_merges_without_its_run(tmp_path: Path):
    options = {"image_size": 16, **recipe()["backbone"]["options"]}
    adapter, expected = finished().folder / "adapter", load_file(finished().folder / "merged.safetensors")
    output, name = tmp_path / "merged.safetensors", "timm/vit_tiny_patch16_224"
    parity = merge_adapter(adapter, output, name, str(base_weights(tmp_path)), **options)
    assert parity.relative < 1e-5
    merged = load_file(output)
    assert all(torch.equal(merged[key], expected[key]) for key in expected)


def test_an_adapter_of_another_base_or_with_cut_files_is_refused(tmp_path: Path):
    options = {"image_size": 16, **recipe()["backbone"]["options"]}
    output, name = tmp_path / "merged.safetensors", "timm/vit_tiny_patch16_224"
    adapter = finished().folder / "adapter"
    with pytest.raises(UserError, match="another base"):
        merge_adapter(adapter, output, name, False, **options)
    cut = tmp_path / "cut"
    shutil.copytree(adapter, cut)
    (cut / "adapter.safetensors").write_bytes((cut / "adapter.safetensors").read_bytes()[:-8])
    with pytest.raises(UserError, match="cut or changed"):
        merge_adapter(cut, output, name, str(base_weights(tmp_path)), **options)
    assert not output.exists()
