"""``lowrank_conv`` against its definition, over the walks a convolution can take."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from visionpeft.kernels.lowrank_conv import reference
from visionpeft.kernels.lowrank_conv.cpu import ConvGeometry, lowrank_conv

RANK = 2
WALKS = [
    (axes, stride, padding, dilation, transposed, groups, kernel)
    for axes, stride, padding, dilation, transposed, groups, kernel in product(
        (1, 2, 3), (1, 2), (0, 1), (1, 2), (False, True), (1, 2), (1, 3)
    )
    if not (kernel == 1 and (dilation == 2 or padding == 1))
]


def case(walk: tuple, out: int, dtype=torch.float64, batch: int = 1, size: int = 6) -> list:
    """Arguments of the function; ``out`` output channels a group choose between the two routes of backward."""
    axes, stride, padding, dilation, transposed, groups, kernel = walk
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    inp, k = 3, (kernel,) * axes
    weight = draw(groups * inp, out, *k) if transposed else draw(groups * out, inp, *k)
    extra = (stride - 1,) * axes if transposed else ()
    geometry = ConvGeometry((stride,) * axes, (padding,) * axes, (dilation,) * axes, transposed, extra, groups)
    x = draw(batch, groups * inp, *(size + i for i in range(axes))).requires_grad_()
    mixer, bank = draw(groups * out, RANK).requires_grad_(), draw(RANK, inp, *k).requires_grad_()
    return [x, weight, draw(groups * out), mixer, bank, geometry, 0.7]


def results(function, args: list) -> list[Tensor]:
    y = function(*args)
    wanted = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    gy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, wanted, gy)]


@pytest.mark.parametrize("out", [2, 9], ids=["narrow", "wide"])
@pytest.mark.parametrize("walk", WALKS, ids=str)
def test_equals_the_definition(walk, out):
    right = results(reference.lowrank_conv, case(walk, out))
    for a, b in zip(results(lowrank_conv, case(walk, out)), right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("out", [2, 9], ids=["narrow", "wide"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("walk", [w for w in WALKS if w[0] == 3], ids=str)
def test_single_precision_3d_by_way_of_onednn(walk, batch, out):
    """float32 takes other code than float64: oneDNN by name, weight gradients by planes."""
    exact = results(reference.lowrank_conv, case(walk, out, torch.float64, batch))
    for a, b in zip(results(lowrank_conv, case(walk, out, torch.float32, batch)), exact, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=0, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("out", [2, 9])
@pytest.mark.parametrize("groups", [1, 3])
def test_depthwise_and_rectangular(groups, out):
    g = torch.Generator().manual_seed(2)
    shapes = (2, groups, 7, 8), (groups * out, 2), (2, 1, 1, 3)
    x, mixer, bank = (torch.randn(s, generator=g, dtype=torch.float64) for s in shapes)
    weight = torch.randn(groups * out, 1, 1, 3, generator=g, dtype=torch.float64)
    geometry = ConvGeometry((2, 1), (0, 2), (1, 2), groups=groups)
    args = [x.requires_grad_(), weight, None, mixer.requires_grad_(), bank.requires_grad_(), geometry]
    for a, b in zip(results(lowrank_conv, args), results(reference.lowrank_conv, args), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "walk", [(2, 2, 1, 1, False, 1, 3), (2, 2, 1, 1, False, 2, 3), (2, 2, 1, 1, True, 2, 3)], ids=str
)
@pytest.mark.parametrize("trains", [(0,), (3,), (4,), (0, 3), (3, 4)])
def test_only_the_gradients_asked_for(walk, trains):
    def only() -> list:
        args = case(walk, 9)
        return [a.detach().requires_grad_(i in trains) if isinstance(a, Tensor) else a for i, a in enumerate(args)]

    for a, b in zip(results(lowrank_conv, only()), results(reference.lowrank_conv, only()), strict=True):
        torch.testing.assert_close(a, b)


def test_small_maps_have_the_change_beside():
    walk = (2, 1, 1, 1, False, 1, 3)
    wide, narrow = case(walk, 30), case(walk, 9)
    assert [type(lowrank_conv(*args).grad_fn).__name__ for args in (wide, narrow)] == [
        "BesideBackward",
        "_LowRankConvBackward",
    ]
    for a, b in zip(results(lowrank_conv, wide), results(reference.lowrank_conv, wide), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("transposed", [False, True])
def test_half_precision_does_not_round_the_change_away(dtype, transposed):
    """The change is a thousandth of the weight: ``W + ΔW`` would lose most of it in eight bits."""
    args = case((2, 1, 1, 1, transposed, 1, 3), 9, dtype)
    args[6] = 1e-3
    change = lowrank_conv(*args).double() - lowrank_conv(*args[:6], 0.0).double()
    exact = [a.double() if isinstance(a, Tensor) else a for a in args]
    right = reference.lowrank_conv(*exact) - reference.lowrank_conv(*exact[:6], 0.0)
    step = torch.finfo(dtype).eps * lowrank_conv(*args).abs().max()
    assert (change - right).abs().max() <= 2 * step
    assert all(torch.isfinite(t).all() for t in results(lowrank_conv, args))


@pytest.mark.parametrize("out", [2, 9])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradcheck_and_no_second_derivative(transposed, out):
    args = case((2, 2, 1, 1, transposed, 1, 3), out, size=4)
    assert torch.autograd.gradcheck(lowrank_conv, args)
    (gx,) = torch.autograd.grad(lowrank_conv(*args).pow(2).sum(), args[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gx.sum().backward()


def test_unbatched_and_a_base_that_trains():
    args = case((2, 1, 1, 1, False, 1, 3), 9)
    single = [args[0].detach()[0], *args[1:]]
    torch.testing.assert_close(lowrank_conv(*single), lowrank_conv(*args)[0])
    args[1].requires_grad_()
    for a, b in zip(results(lowrank_conv, args), results(reference.lowrank_conv, args), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_changes_nothing(reentrant):
    args = case((2, 1, 1, 1, False, 1, 3), 9, torch.float32)

    def block(x: Tensor) -> Tensor:
        return lowrank_conv(F.silu(x), *args[1:])

    wanted = [args[0], args[3], args[4]]
    plain = torch.autograd.grad(block(args[0]).pow(2).sum(), wanted)
    checkpoint(block, args[0], use_reentrant=reentrant).pow(2).sum().backward()
    for a, b in zip(plain, [t.grad for t in wanted], strict=True):
        assert b is not None and torch.equal(a, b)
