"""Exports of segmentation networks: programs of any size, and a MONAI bundle that runs without visionpeft."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from nibabel.nifti1 import Nifti1Image
from PIL import Image
from safetensors.torch import load_file, save_file
from test_cli import call
from tiny import finished as finished_labels
from tinyseg import ball, discs, finished
from torch.nn import functional as F

import visionpeft as vp
from visionpeft.errors import UserError
from visionpeft.export import export_run
from visionpeft.export.adapters import merge_adapter
from visionpeft.export.case_inferer import CaseInferer
from visionpeft.export.parity import ParityError, compare
from visionpeft.export.sizes import with_sizes
from visionpeft.runs.finished import OpenedRun, open_run
from visionpeft.tasks.windows import predict_probabilities


@cache
def opened(axes: int) -> OpenedRun:
    return open_run(finished(axes).folder)


@torch.inference_mode()
def maps(images: torch.Tensor) -> torch.Tensor:
    return opened(2).stages.task.model.eval()(images)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 1, 48, 20, generator=torch.Generator().manual_seed(0))


def test_a_program_takes_images_of_any_size(images: torch.Tensor, tmp_path: Path):
    path, parity = export_run(finished(2).folder, "program", tmp_path / "m.pt2")
    assert torch.allclose(torch.export.load(path).module()(images), maps(images), atol=1e-5)
    assert "of 2,048 voxels" in str(parity) and "sides that are multiples of 2" in parity.note


def test_a_program_of_any_size_that_cannot_be_written_gives_way_to_one_of_these_sides(monkeypatch, tmp_path: Path):
    """So it is for encoders that pad as TensorFlow does: ``ceil`` has no name in torch's files."""
    written = torch.export.save

    def save(program: torch.export.ExportedProgram, *where) -> None:
        assert len(program.range_constraints) < 2, "op <built-in function ceil> is not in _SYM_OPS"
        written(program, *where)

    monkeypatch.setattr(torch.export, "save", save)
    _, parity = export_run(finished(2).folder, "program", tmp_path / "m.pt2")
    assert "only, any number of them" in parity.note


def test_onnx_takes_images_of_any_size(images: torch.Tensor, tmp_path: Path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    path, parity = export_run(finished(2).folder, "onnx", tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    assert torch.allclose(torch.from_numpy(found), maps(images), atol=1e-3) and "multiples of 2" in parity.note


def test_sizes_are_tried_not_believed(images: torch.Tensor):
    model, images = opened(2).stages.task.model, images[..., :16, :16]
    parity = compare(model, model, images, "same")

    def fixed(batch: torch.Tensor) -> torch.Tensor:
        if batch.shape[2:] != (16, 16):
            raise RuntimeError("made for 16×16")
        return model(batch)

    assert with_sizes(parity, model, fixed, images).note.startswith("images of 16×16 only")
    with pytest.raises(ParityError, match="larger"):
        with_sizes(parity, model, lambda batch: model(batch) * (batch.shape[2] == 16), images)


@pytest.mark.parametrize("options", [{"window": (16, 16)}, {"divisor": 4, "flips": True}, {"divisor": 2, "size": 24}])
def test_the_scripts_of_a_bundle_do_what_the_test_cases_went_through(images: torch.Tensor, options: dict):
    model, image = opened(2).stages.task.model.eval(), images[:1, :, :37, :19]
    small = image
    if size := options.get("size"):
        small = F.interpolate(image, [size, round(19 * size / 37)], mode="bilinear", antialias=True)
    passed = {key: value for key, value in options.items() if key != "size"}
    wanted = predict_probabilities(model, small, 2, **passed)
    if wanted.shape != image.shape:
        wanted = F.interpolate(wanted, image.shape[2:], mode="bilinear")
    assert torch.allclose(CaseInferer(**options)(image, model), wanted, atol=1e-5)


def test_a_bundle_holds_merged_weights_under_the_networks_own_names(tmp_path: Path):
    folder, parity = export_run(finished(2).folder, "bundle", tmp_path / "bundle")
    state = torch.load(folder / "models/model.pt", weights_only=True)
    merged = load_file(str(finished(2).merged))
    assert state.keys() == merged.keys() and all(torch.equal(state[key], merged[key]) for key in state)
    assert "whole case: 100.00%" in parity.note and "TorchScript" in parity.note
    config = json.loads((folder / "configs/inference.json").read_text())
    assert config["network_def"]["_target_"] == "monai.networks.nets.UNet"
    assert config["network_def"]["channels"] == [8, 16]
    assert "CC0" in (folder / "LICENSE").read_text() and "1: disc" in (folder / "docs/README.md").read_text()
    assert "visionpeft" not in (folder / "configs/inference.json").read_text()
    with pytest.raises(UserError, match="exists already"):
        export_run(finished(2).folder, "bundle", folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


def test_a_bundle_of_a_classification_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="made of segmentation runs"):
        export_run(finished_labels().folder, "bundle", tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def monai_bundle(folder: Path, *words: str) -> None:
    code = "import runpy, sys; sys.modules['visionpeft'] = None; runpy.run_module('monai.bundle', run_name='__main__')"
    done = subprocess.run([sys.executable, "-P", "-c", code, *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("axes", [2, 3])
def test_monai_runs_the_bundle_and_its_masks_are_those_of_predict(
    axes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    for needed in ("fire", "jsonschema", "ignite"):
        pytest.importorskip(needed)
    folder, _ = export_run(finished(axes).folder, "bundle", tmp_path / "bundle")
    (folder / "input").mkdir()
    if axes == 2:
        Image.fromarray(discs(50, seed=7)[0][:, :41]).save(folder / "input" / "a.png")
    else:
        turned = np.array([[0, -2.0, 0, 10], [1, 0, 0, -5], [0, 0, -1.5, 3], [0, 0, 0, 1]])
        nibabel.save(Nifti1Image(ball((24, 30, 18), seed=9)[0], turned), folder / "input" / "a.nii.gz")
    monai_bundle(folder, "run", "--config_file", "configs/inference.json")
    code, _, _ = call(
        capsys,
        monkeypatch,
        "predict",
        str(finished(axes).folder),
        str(folder / "input"),
        "-o",
        str(tmp_path / "out"),
        "-q",
    )
    assert code == 0
    if axes == 2:
        found, wanted = (np.asarray(Image.open(p)) for p in (folder / "eval/a_mask.png", tmp_path / "out/a.png"))
    else:
        one, other = nibabel.load(folder / "eval/a_mask.nii.gz"), nibabel.load(tmp_path / "out/a.nii.gz")
        assert np.allclose(one.affine, other.affine)
        found, wanted = np.asarray(one.dataobj), np.asarray(other.dataobj)
    assert wanted.any() and np.array_equal(found, wanted)


@pytest.mark.slow
def test_monai_accepts_the_metadata(tmp_path: Path):
    """MONAI downloads the schema that the metadata names, unless a file is there; this one holds its required keys."""
    for needed in ("fire", "jsonschema"):
        pytest.importorskip(needed)
    folder, _ = export_run(finished(2).folder, "bundle", tmp_path / "bundle")
    named = ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"]
    tensors = {"type": "object", "additionalProperties": {"type": "object", "required": named}}
    data = {"type": "object", "required": ["inputs", "outputs"], "properties": {"inputs": tensors, "outputs": tensors}}
    keys = "schema version monai_version pytorch_version numpy_version required_packages_version task description"
    schema = {"type": "object", "required": [*keys.split(), "authors", "copyright", "network_data_format"]}
    (tmp_path / "schema.json").write_text(json.dumps({**schema, "properties": {"network_data_format": data}}))
    words = ("--meta_file", "configs/metadata.json", "--filepath", str(tmp_path / "schema.json"))
    monai_bundle(folder, "verify_metadata", *words)


@pytest.mark.parametrize("axes", [2, 3])
def test_the_adapter_folder_of_a_segmentation_merges_without_its_run(axes: int, tmp_path: Path):
    """The number of classes is read off the head that lies beside the adapter."""
    run = open_run(finished(axes).folder)
    vp.remove(run.stages.task.model)
    base = {key: value.contiguous() for key, value in run.stages.task.model.state_dict().items()}
    save_file(base, tmp_path / "base.safetensors")
    section = run.recipe.backbone
    parity = merge_adapter(
        finished(axes).folder / "adapter",
        tmp_path / "merged.safetensors",
        section.name,
        str(tmp_path / "base.safetensors"),
        **section.options,
    )
    found, wanted = load_file(tmp_path / "merged.safetensors"), load_file(finished(axes).folder / "merged.safetensors")
    assert parity.relative < 1e-5 and all(torch.equal(found[key], wanted[key]) for key in wanted)
