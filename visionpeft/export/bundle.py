"""A MONAI bundle of the merged network: what ``python -m monai.bundle run`` needs to segment a folder of images."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from monai.bundle.config_parser import ConfigParser
from torch import Tensor, nn

from visionpeft.backbones import monai as monai_backbones
from visionpeft.backbones.bundle import read_bundle
from visionpeft.backbones.spec import Request
from visionpeft.errors import OptionError, StateError, UserError
from visionpeft.export import case_inferer
from visionpeft.export.bundle_config import inference, licence, metadata, readme
from visionpeft.export.case_inferer import CaseInferer
from visionpeft.export.merged import merged_state, why_not_mergeable
from visionpeft.export.parity import Parity, compare
from visionpeft.export.sizes import MainOutput, with_sizes
from visionpeft.files import atomic_write
from visionpeft.recipe import Recipe
from visionpeft.runs.kinds import Stages
from visionpeft.runs.stages import open_backbone
from visionpeft.tasks.segment import SegmentTask
from visionpeft.tasks.windows import divisor_of


def write_bundle(path: Path, stages: Stages, recipe: Recipe, images: Tensor) -> Parity:
    """Write the bundle's folder, load it as MONAI does, and compare it with the adapted model.

    Networks of MONAI are named by their class, with weights under their own keys (``models/model.pt``); of others the
    bundle holds the TorchScript program (``models/model.ts``). The scripts inside need torch and MONAI only.

    Args:
        path: the folder to make.
        stages: adapted and trained.
        recipe: that of the entry.
        images: ``(B, C, *spatial)``, a real batch to compare on.

    Raises:
        UserError: the folder exists, the run is no segmentation, its adapter cannot be merged, or the network is none
            of MONAI's and cannot be traced.
        ParityError: the bundle does not say what the adapted model says; nothing is left at ``path``.
    """
    task = stages.task
    if not isinstance(task, SegmentTask):
        raise OptionError("a bundle is made of segmentation runs; of others export merged, program or onnx")
    if reason := why_not_mergeable(recipe):
        raise StateError(reason)
    if stages.data.voxel_size and stages.data.axes == 2:
        raise OptionError("data.spacing of pictures is not kept in a bundle, whose readers know none: export onnx")
    if path.exists():
        raise UserError(f"{path} exists already: choose another --output")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as temporary:
        folder = Path(temporary) / "bundle"
        _write(folder, stages, recipe, images)
        parity = _checked(folder, task, images)
        folder.rename(path)
    return parity


def _write(folder: Path, stages: Stages, recipe: Recipe, images: Tensor) -> None:
    state, classes = merged_state(stages.task.model), len(stages.data.classes)
    plain = open_backbone(recipe, classes, pretrained=False).model
    plain.load_state_dict(state)
    script = _script(plain.eval(), images)
    network = _network_def(recipe, classes)
    if network is None and script is None:
        raise StateError(
            f"{recipe.backbone.name} cannot be traced, and MONAI has no class of it: export program or onnx"
        )
    divisor = divisor_of(plain, images)
    files = {
        "configs/inference.json": inference(stages, recipe, divisor, network),
        "configs/metadata.json": metadata(stages, recipe, divisor),
        "docs/README.md": readme(stages, recipe, script is not None),
        "LICENSE": licence(stages),
        "scripts/__init__.py": "",
        "scripts/case_inferer.py": Path(case_inferer.__file__).read_bytes(),
        "models/model.pt": _saved(state),
    }
    for name, content in files.items():
        atomic_write(folder / name, json.dumps(content, indent=2) if isinstance(content, dict) else content)
    if script is not None:
        atomic_write(folder / "models/model.ts", script)


def _checked(folder: Path, task: SegmentTask, images: Tensor) -> Parity:
    """Load what was written as a user of the bundle would, and compare network and whole cases."""
    parser = ConfigParser()
    parser.read_config(folder / "configs" / "inference.json")
    parser["bundle_root"] = str(folder)
    parser["device"] = "cpu"
    network: nn.Module = parser.get_parsed_content("network_def").eval()
    if "checkpoint" in parser:
        network.load_state_dict(torch.load(folder / "models/model.pt", weights_only=True))
    task.eval()
    parity = compare(task.model, network, images, "bundle's")
    options = {key: value for key, value in parser["inferer"].items() if key != "_target_"}
    image = images[:1, ..., : -(-2 * images.shape[-1] // 3)]  # of a side that must be padded
    found = CaseInferer(**{**options, "size": None})(image, network)
    same = (task.predict_case(image).argmax(1) == found.argmax(1)).float().mean().item()
    note = f"whole case: {same:.2%} of voxels the same class"
    if (folder / "models/model.ts").exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # MONAI's bundles hold TorchScript
            script = torch.jit.load(folder / "models/model.ts")
        traced = with_sizes(compare(task.model, script, images, "TorchScript"), task.model, script, images)
        note += f"; TorchScript: {traced.note}"
    return replace(parity, note=note)


def _script(model: nn.Module, images: Tensor) -> bytes | None:
    """The traced network, or None where it cannot be traced."""
    stream = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # tracing warns of every shape that becomes a constant; sizes are tried
            torch.jit.save(torch.jit.trace(MainOutput(model), images, check_trace=False), stream)
    except Exception:  # the tracer raises many things
        return None
    return stream.getvalue()


def _saved(state: dict[str, Tensor]) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def _network_def(recipe: Recipe, classes: int) -> dict[str, Any] | None:
    """The class of MONAI and its options, or None for other networks."""
    section = recipe.backbone
    family, _, name = section.name.partition("/")
    if family != "monai":
        return None
    pretrained = section.pretrained
    folder = Path(pretrained).expanduser() if isinstance(pretrained, str) else None
    published = read_bundle(folder).options if folder is not None and folder.is_dir() else None
    request = Request(name, False, classes, section.image_size, "cpu", dict(section.options))
    network = monai_backbones.network_named(name)
    return {
        "_target_": f"monai.networks.nets.{name}",
        **monai_backbones.constructor_options(request, network, published),
    }
