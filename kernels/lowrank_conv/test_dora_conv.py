"""``dora_conv`` and filters in parts (LoRA-C) against their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from visionpeft.kernels.conv_onednn.geometry import ConvGeometry
from visionpeft.kernels.lowrank_conv import reference
from visionpeft.kernels.lowrank_conv.cpu import lowrank_conv
from visionpeft.kernels.lowrank_conv.dora import dora_conv, possible
from visionpeft.kernels.lowrank_conv.factors import Factors, dense_is_cheaper

RANK = 2
WIDTHS = {"narrow": 2, "wide": 30}  # by the gradient of the whole weight, and by the filters


def case(width: str, transposed: bool = False, groups: int = 1, parts: int = 1, bias: bool = True) -> dict:
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    out, inp = WIDTHS[width], 4  # four channels in three parts: their borders lie within a filter
    weight = draw(groups * inp, out, 3, 3) if transposed else draw(groups * out, inp, 3, 3)
    bank = draw(RANK, inp, 3, 3) if parts == 1 else draw(RANK, inp * 9 // parts)
    return {
        "x": draw(2, groups * inp, 6, 7).requires_grad_(),
        "weight": weight,
        "bias": draw(groups * out) if bias else None,
        "mixer": draw(groups * out * parts, RANK).requires_grad_(),
        "bank": bank.requires_grad_(),
        "geometry": ConvGeometry((2, 2), (1, 1), (1, 1), transposed, (1, 1) if transposed else (), groups),
        "scale": 0.7,
    }


def with_magnitude(*args, **options) -> dict:
    own = case(*args, **options)
    weight, geometry = own["weight"], own["geometry"]
    rows = geometry.groups * weight.shape[1] if geometry.transposed else len(weight)
    return {**own, "magnitude": torch.linspace(0.5, 2, rows, dtype=torch.float64).requires_grad_()}


def results(function, arguments: dict, behind=lambda y: y) -> list[Tensor]:
    y = behind(function(**arguments))
    gy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = [a for a in arguments.values() if isinstance(a, Tensor) and a.requires_grad]
    return [y.detach().clone(), *torch.autograd.grad(y, wanted, gy)]


def equal_the_definition(function, arguments: dict, behind=lambda y: y) -> None:
    right = results(reference.lowrank_conv, arguments, behind)
    for a, b in zip(results(function, arguments, behind), right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


WALKS = pytest.mark.parametrize(
    ("transposed", "groups", "parts"),
    [(False, 1, 1), (True, 1, 1), (False, 3, 1), (True, 3, 1), (False, 1, 3), (True, 1, 3)],
)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("bias", [True, False])
@WALKS
def test_dora_equals_the_definition(width, bias, transposed, groups, parts):
    equal_the_definition(dora_conv, with_magnitude(width, transposed, groups, parts, bias))


@pytest.mark.parametrize("width", WIDTHS)
@WALKS
def test_filters_in_parts(width, transposed, groups, parts):
    equal_the_definition(lowrank_conv, case(width, transposed, groups, parts))


@pytest.mark.parametrize("width", WIDTHS)
def test_filters_in_parts_of_a_base_that_trains(width):
    arguments = case(width, parts=3)
    arguments["weight"].requires_grad_()
    assert not possible(arguments["x"], arguments["weight"], None)
    equal_the_definition(lowrank_conv, arguments)


@pytest.mark.parametrize("parts", [1, 3])
def test_both_routes_are_taken(parts):
    narrow, wide = (_factors(case(width, parts=parts)) for width in WIDTHS)
    assert dense_is_cheaper(narrow, True, True) and not dense_is_cheaper(wide, True, True)


def _factors(arguments: dict) -> Factors:
    shape = arguments["weight"].shape
    return Factors(arguments["mixer"], arguments["bank"], arguments["geometry"], arguments["scale"], shape)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("behind", [lambda y: y.relu_(), lambda y: y.mul_(0.0) + 1, lambda y: y[:, :1].zero_()])
def test_an_output_that_is_changed_in_place(width, behind):
    equal_the_definition(dora_conv, with_magnitude(width), behind)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("behind", [F.relu, torch.relu_])
def test_checkpointing_changes_nothing(width, reentrant, behind):
    arguments = with_magnitude(width)
    wanted = [arguments[name] for name in ("x", "mixer", "bank", "magnitude")]

    def block(x: Tensor) -> Tensor:
        return behind(dora_conv(**{**arguments, "x": x}))

    plain = torch.autograd.grad(block(wanted[0]).pow(2).sum(), wanted)
    checkpoint(block, wanted[0], use_reentrant=reentrant).pow(2).sum().backward()
    for a, b in zip(plain, [tensor.grad for tensor in wanted], strict=True):
        assert b is not None and torch.equal(a, b)


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_of_zeros_and_magnitudes_of_zero(width):
    arguments = with_magnitude(width, bias=False)
    with torch.no_grad():
        arguments["weight"][0], arguments["mixer"][0] = 0, 0
        arguments["magnitude"][:2] = 0
    y, *gradients = results(dora_conv, arguments)
    assert not y[:, :2].any() and all(torch.isfinite(g).all() for g in gradients)
    assert gradients[-1][0] == 0 != gradients[-1][1]  # a length can grow again, a row of zeros has no direction
    equal_the_definition(dora_conv, arguments)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("trains", [("x",), ("magnitude",), ("bank",), ("mixer",), ("x", "mixer", "bank")])
def test_only_the_gradients_asked_for(width, trains):
    arguments = {k: v.detach() if isinstance(v, Tensor) else v for k, v in with_magnitude(width).items()}
    for name in trains:
        arguments[name].requires_grad_()
    equal_the_definition(dora_conv, arguments)


def test_a_second_backward_pass_and_no_second_derivative():
    arguments = with_magnitude("wide")
    y = dora_conv(**arguments)
    first = torch.autograd.grad(y.sum(), arguments["magnitude"], retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(y.sum(), arguments["magnitude"])[0])
    (gx,) = torch.autograd.grad(dora_conv(**arguments).pow(2).sum(), arguments["x"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gx.sum().backward()


def test_inference_mode():
    arguments = with_magnitude("wide")
    with torch.inference_mode():
        y = dora_conv(**arguments)
    torch.testing.assert_close(y.clone(), reference.lowrank_conv(**arguments))


def test_the_output_is_kept_once():
    """What lies behind keeps the output already; a second copy would show as another storage."""
    arguments, storages = with_magnitude("wide"), []

    def note(tensor: Tensor) -> Tensor:
        storages.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = dora_conv(**arguments)
        torch.sigmoid(F.layer_norm(y, y.shape[1:]))
    assert storages.count(y.untyped_storage().data_ptr()) == 2
