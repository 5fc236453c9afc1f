"""``lowrank_linear`` against its definition: values, gradients, what it keeps, and the machinery around it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from visionpeft.kernels.lowrank_linear import reference
from visionpeft.kernels.lowrank_linear.cpu import lowrank_linear


def arguments(dtype=torch.float64, lead=(2, 5), trains=(True, True, True), bias=True) -> list:
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    x, mixer, bank = draw(*lead, 6), draw(7, 3), draw(3, 6)
    for tensor, train in zip((x, mixer, bank), trains, strict=True):
        tensor.requires_grad_(train)
    return [x, draw(7, 6), draw(7) if bias else None, mixer, bank, 0.7]


def results(function, args: list) -> list[Tensor]:
    y = function(*args)
    wanted = [a for a in args if isinstance(a, Tensor) and a.requires_grad]
    g = torch.Generator().manual_seed(1)
    gy = torch.randn(y.shape, generator=g, dtype=torch.float64).to(y.dtype)
    return [y.detach(), *(torch.autograd.grad(y, wanted, gy) if wanted else ())]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(), (5,), (2, 5), (2, 0), (2, 3, 4)])
@pytest.mark.parametrize("trains", [(True, True, True), (False, True, True), (True, True, False), (True, False, False)])
def test_equals_the_definition(lead, trains, bias):
    ours = results(lowrank_linear, arguments(lead=lead, trains=trains, bias=bias))
    right = results(reference.lowrank_linear, arguments(lead=lead, trains=trains, bias=bias))
    for a, b in zip(ours, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rounds_no_worse_than_its_type(dtype):
    exact = results(reference.lowrank_linear, [a.double() if isinstance(a, Tensor) else a for a in detached(dtype)])
    for a, b in zip(results(lowrank_linear, detached(dtype)), exact, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, rtol=0, atol=16 * torch.finfo(dtype).eps * b.abs().max().item())


def detached(dtype: torch.dtype) -> list:
    return [a.detach() if isinstance(a, Tensor) else a for a in arguments(dtype)]


def test_gradcheck_and_no_second_derivative():
    args = arguments(lead=(4,))
    assert torch.autograd.gradcheck(lowrank_linear, args)
    (gx,) = torch.autograd.grad(lowrank_linear(*args).pow(2).sum(), args[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gx.sum().backward()


def test_a_base_that_trains_gets_its_gradient():
    args = arguments()
    args[1].requires_grad_(True)
    args[2].requires_grad_(True)
    for a, b in zip(results(lowrank_linear, args), results(reference.lowrank_linear, args), strict=True):
        torch.testing.assert_close(a, b)


def test_takes_transposed_inputs_and_gradients():
    x, *rest = arguments(lead=(5, 4))
    y = lowrank_linear(x.transpose(0, 1), *rest).transpose(0, 1)
    gy = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(*y.shape[::-1]).permute(2, 1, 0)
    wrong = torch.autograd.grad(y, x, gy)[0] - torch.autograd.grad(reference.lowrank_linear(x, *rest), x, gy)[0]
    assert wrong.abs().max() < 1e-12


class Block(nn.Module):
    """LayerNorm → layer → GELU → layer, as in a transformer's MLP."""

    def __init__(self):
        super().__init__()
        g = torch.Generator().manual_seed(2)
        self.norm, self.fused = nn.LayerNorm(6), True
        self.weights = [torch.randn(s, generator=g) for s in ((24, 6), (6, 24))]
        factors = [torch.randn(s, generator=g) for s in ((24, 2), (2, 6), (6, 2), (2, 24))]
        self.factors = nn.ParameterList(factors)

    def forward(self, x: Tensor) -> Tensor:
        layer = lowrank_linear if self.fused else reference.lowrank_linear
        h = layer(self.norm(x), self.weights[0], None, self.factors[0], self.factors[1])
        return layer(F.gelu(h), self.weights[1], None, self.factors[2], self.factors[3])


def gradients(block: Block, run) -> list[Tensor]:
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(3), requires_grad=True)
    wanted = [x, *block.parameters()]
    return list(torch.autograd.grad(run(block, x).pow(2).sum(), wanted))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_changes_nothing(reentrant):
    block = Block()
    plain = gradients(block, lambda b, x: b(x))
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(3), requires_grad=True)
    checkpoint(block, x, use_reentrant=reentrant).pow(2).sum().backward()
    for a, b in zip(plain, [x.grad, *(p.grad for p in block.parameters())], strict=True):
        assert b is not None and torch.equal(a, b)


def test_layers_behind_norm_and_gelu_keep_no_copy():
    def kept_bytes(block: Block) -> int:
        storages = {}

        def pack(t: Tensor) -> Tensor:
            storages[t.untyped_storage().data_ptr()] = (t.untyped_storage().nbytes(), t)
            return t

        x = torch.randn(64, 50, 6, generator=torch.Generator().manual_seed(3), requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            block(x)
        return sum(size for size, _ in storages.values())

    block = Block()
    lean, block.fused = kept_bytes(block), False
    tokens = 64 * 50 * 4
    # Gone: the norm's output (6 channels) and GELU's (24). Come: the two responses of rank 2.
    assert kept_bytes(block) - lean > tokens * (6 + 24 - 2 * 2) * 0.9


def test_gradients_in_bfloat16_backward_under_autocast():
    block = Block()
    plain = gradients(block, lambda b, x: b(x))

    def run(b: Block, x: Tensor) -> Tensor:
        y = b(x)
        torch.set_autocast_enabled("cpu", True)
        return y

    try:
        for a, b in zip(plain, gradients(block, run), strict=True):
            assert torch.equal(a, b)
    finally:
        torch.set_autocast_enabled("cpu", False)
