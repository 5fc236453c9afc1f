"""U²-Net (Qin et al., 2020): a U-Net whose stages are small U-Nets, with a side output at every depth.

Modules bear the names of the authors' checkpoints. Batch normalisation is folded into the convolutions, as in the
published ONNX file; :func:`folded` does the same to a checkpoint that still has it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visionpeft.backbones.weights import State

_Widths = tuple[tuple[int, int], ...]

VARIANTS: dict[str, tuple[_Widths, _Widths]] = {
    "u2net": (
        ((32, 64), (32, 128), (64, 256), (128, 512), (256, 512), (256, 512)),
        ((16, 64), (32, 64), (64, 128), (128, 256), (256, 512)),
    ),
    "u2netp": (((16, 64),) * 6, ((16, 64),) * 5),
}
"""Name → channels inside and behind the stages of encoder and decoder, the finest first; ``u2netp`` is small."""
_HEIGHTS = (7, 6, 5, 4, 4, 4)
_DILATED = (5, 6)


class U2Net(nn.Module):
    """Maps ``(B, in_channels, H, W)`` to class logits ``(B, classes, H, W)``.

    In training it returns seven such maps, for deep supervision: the fused one, then those of the stages from the
    finest to the coarsest.
    """

    def __init__(self, in_channels: int = 3, classes: int = 1, variant: str = "u2net"):
        super().__init__()
        encoder, decoder = VARIANTS[variant]
        outs = [in_channels, *(out for _, out in encoder)]
        for depth, (mid, out) in enumerate(encoder, start=1):
            self.add_module(f"stage{depth}", RSU(_HEIGHTS[depth - 1], outs[depth - 1], mid, out, depth in _DILATED))
        coarser = outs[-1]
        for depth, (mid, out) in reversed(list(enumerate(decoder, start=1))):
            stage = RSU(_HEIGHTS[depth - 1], coarser + outs[depth], mid, out, depth in _DILATED)
            self.add_module(f"stage{depth}d", stage)
            coarser = out
        for depth, width in enumerate([*(out for _, out in decoder), outs[-1]], start=1):
            self.add_module(f"side{depth}", nn.Conv2d(width, classes, 3, padding=1))
        self.outconv = nn.Conv2d(6 * classes, classes, 1)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """See the class."""
        down = []
        for depth in range(1, 7):
            stage = self.get_submodule(f"stage{depth}")
            down.append(stage(_halved(down[-1]) if down else images))
        up = down[-1:]
        for depth in range(5, 0, -1):
            skip = down[depth - 1]
            up.insert(0, self.get_submodule(f"stage{depth}d")(torch.cat((_like(up[0], skip), skip), 1)))
        sides = [self.get_submodule(f"side{depth}")(found) for depth, found in enumerate(up, start=1)]
        sides = [sides[0], *(_like(side, sides[0]) for side in sides[1:])]
        fused = self.outconv(torch.cat(sides, 1))
        return (fused, *sides) if self.training else fused


class RSU(nn.Module):
    """A residual U-block of some height. The dilated one keeps its maps' size and widens its kernels instead."""

    def __init__(self, height: int, inp: int, mid: int, out: int, dilated: bool = False):
        super().__init__()
        self.height, self.dilated = height, dilated
        rates = [2**depth if dilated else 1 for depth in range(height)]
        if not dilated:
            rates[-1] = 2
        self.rebnconvin = REBNCONV(inp, out)
        for depth, rate in enumerate(rates, start=1):
            self.add_module(f"rebnconv{depth}", REBNCONV(out if depth == 1 else mid, mid, rate))
        for depth in range(height - 1, 0, -1):
            self.add_module(f"rebnconv{depth}d", REBNCONV(2 * mid, out if depth == 1 else mid, rates[depth - 1]))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inp, H, W)`` to ``(B, out, H, W)``."""
        start = self.rebnconvin(x)
        down, found = [], start
        for depth in range(1, self.height + 1):
            if 1 < depth < self.height and not self.dilated:
                found = _halved(found)
            found = self.get_submodule(f"rebnconv{depth}")(found)
            down.append(found)
        for depth in range(self.height - 1, 0, -1):
            skip = down[depth - 1]
            found = self.get_submodule(f"rebnconv{depth}d")(torch.cat((_like(found, skip), skip), 1))
        return found + start


class REBNCONV(nn.Module):
    """A 3×3 convolution and a ReLU."""

    def __init__(self, inp: int, out: int, rate: int = 1):
        super().__init__()
        self.conv_s1 = nn.Conv2d(inp, out, 3, padding=rate, dilation=rate)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inp, H, W)`` to ``(B, out, H, W)``."""
        return F.relu(self.conv_s1(x))


def folded(state: State) -> State:
    """A checkpoint with the statistics and gains of each ``bn_s1`` folded into the ``conv_s1`` beside it."""
    plain = {key: value for key, value in state.items() if ".bn_s1." not in key}
    for key in [key for key in state if key.endswith(".bn_s1.running_var")]:
        conv, norm = key.replace("bn_s1.running_var", "conv_s1"), key.removesuffix(".running_var")
        gain = state[f"{norm}.weight"] * (state[key] + 1e-5).rsqrt()
        plain[f"{conv}.weight"] = plain[f"{conv}.weight"] * gain[:, None, None, None]
        plain[f"{conv}.bias"] = (plain[f"{conv}.bias"] - state[f"{norm}.running_mean"]) * gain + state[f"{norm}.bias"]
    return plain


def two_classes(state: State) -> State:
    """The head of one salient class as one of background and object: ``sigmoid(z)`` is ``softmax(−z/2, z/2)``."""
    split = dict(state)
    halves = torch.tensor([-0.5, 0.5])
    for depth in range(1, 7):
        for kind in ("weight", "bias"):
            value = state[f"side{depth}.{kind}"]
            split[f"side{depth}.{kind}"] = value * halves.view(2, *[1] * (value.dim() - 1))
    split["outconv.weight"] = torch.kron(state["outconv.weight"].flatten(1), torch.eye(2))[..., None, None]
    split["outconv.bias"] = state["outconv.bias"] * halves
    return split


def _halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True)


def _like(x: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(x, other.shape[2:], mode="bilinear", align_corners=False)
