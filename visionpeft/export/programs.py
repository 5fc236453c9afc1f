"""Programs: the network as a graph that runs without its Python code, by ``torch.export`` or as ONNX."""

from __future__ import annotations

import importlib.util
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visionpeft.errors import UserError
from visionpeft.export.parity import Parity, compare
from visionpeft.export.sizes import MainOutput, exported, with_sizes
from visionpeft.files import atomic_write


def write_program(path: Path, model: nn.Module, images: Tensor) -> Parity:
    """Save ``model`` as a ``torch.export`` program (``.pt2``) with a free batch size, and compare it on ``images``.

    Images of a segmentation network may have any size that the network takes, where it can be exported so; the result
    says which.

    Raises:
        ParityError: the loaded program does not say what the model says.
    """

    def export(shapes: dict[int, Any]) -> bytes:
        program, file = (
            torch.export.export(MainOutput(model).eval(), (images,), dynamic_shapes=({**shapes},)),
            BytesIO(),
        )
        torch.export.save(program, file)  # here, since a program may be made of any size and not be written down
        return file.getvalue()

    content = exported(export, model, images)
    atomic_write(path, content)
    loaded = torch.export.load(path).module()
    return with_sizes(compare(model, loaded, images, "torch.export"), model, loaded, images)


def write_onnx(path: Path, model: nn.Module, images: Tensor) -> Parity:
    """Save ``model`` as ONNX with a free batch size, and compare it under onnxruntime; sizes as in a program.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is not installed.
        ParityError: onnxruntime does not compute what the model computes.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"ONNX export needs {', '.join(missing)}: pip install 'visionpeft[onnx]'")
    import onnxruntime

    def export(shapes: dict[int, Any]) -> Any:
        wrapped = MainOutput(model).eval()
        return torch.onnx.export(wrapped, (images,), dynamo=True, dynamic_shapes=({**shapes},), verbose=False)

    program = exported(export, model, images)
    atomic_write(path, lambda temporary: program.save(str(temporary), external_data=False))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(batch: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: batch.numpy()})[0])

    return with_sizes(compare(model, run, images, "ONNX"), model, run, images)
