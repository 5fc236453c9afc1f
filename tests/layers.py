"""The layers that the laws run over: one of every site kind, small, with a bias wherever the layer can have one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """A host, the target that adapts it, and an input."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    target: str = ""
    vocabulary: int = 0

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return self.build().to(dtype)

    def input(self, dtype: torch.dtype = torch.float32) -> Tensor:
        stream = torch.Generator().manual_seed(1)
        if self.vocabulary:
            return torch.randint(0, self.vocabulary, self.shape, generator=stream)
        return torch.randn(self.shape, generator=stream, dtype=torch.float64).to(dtype)


class SelfAttention(nn.Module):
    """``nn.MultiheadAttention`` on one sequence; cross dimensions make its projections separate."""

    def __init__(self, separate: bool = False):
        super().__init__()
        sizes = {"kdim": 12, "vdim": 12} if separate else {}
        self.attn = nn.MultiheadAttention(12, 4, batch_first=True, **sizes)
        if separate:  # equal sizes still pack, so take what torch makes for unequal ones
            self.attn = nn.MultiheadAttention(12, 4, batch_first=True, kdim=8, vdim=8)

    def forward(self, x: Tensor) -> Tensor:
        context = x if self.attn.in_proj_weight is not None else x[..., :8]
        return self.attn(x, context, context, need_weights=False)[0]


class ReadQKV(nn.Module):
    """timm's EVA and BEiT attention: the weight of ``qkv`` is read, and its module never called."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24, bias=False)
        self.q_bias = nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.q_bias])
        return nn.functional.linear(x, self.qkv.weight, bias)


class Parameters(nn.Module):
    """A position table and a projection, as in CLIP."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, 5, 8))
        self.proj = nn.Parameter(torch.randn(8, 6))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.positions) @ self.proj


def hugging_face_conv1d() -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    return Conv1D(10, 8)


def encoder_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(12, 4, 16, dropout=0.0, batch_first=True)


LAYERS = [
    Layer("linear", lambda: nn.Linear(12, 10), (2, 9, 12)),
    Layer("linear-odd", lambda: nn.Linear(9, 11), (2, 9, 9)),
    Layer("conv1d", lambda: nn.Conv1d(6, 8, 3, padding=1), (2, 6, 10)),
    Layer("conv2d", lambda: nn.Conv2d(6, 8, 3, padding=1), (2, 6, 7, 6)),
    Layer("conv2d-1x1", lambda: nn.Conv2d(6, 8, 1), (2, 6, 5, 4)),
    Layer("conv2d-stride", lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 7, 8)),
    Layer("conv2d-dilation", lambda: nn.Conv2d(6, 8, 3, dilation=2, padding=2), (2, 6, 7, 8)),
    Layer("conv2d-asymmetric", lambda: nn.Conv2d(6, 8, (1, 5), stride=(2, 1), padding=(0, 2)), (2, 6, 7, 8)),
    Layer("conv2d-same", lambda: nn.Conv2d(6, 8, (4, 3), dilation=(1, 2), padding="same"), (2, 6, 7, 8)),
    Layer("conv2d-valid", lambda: nn.Conv2d(6, 8, 3, padding="valid"), (2, 6, 7, 8)),
    Layer("conv2d-groups", lambda: nn.Conv2d(8, 12, 3, padding=1, groups=4), (2, 8, 6, 5)),
    Layer("conv2d-depthwise", lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8), (2, 8, 6, 5)),
    *(
        Layer(f"conv2d-{mode}", lambda mode=mode: nn.Conv2d(6, 8, 3, padding=(2, 1), padding_mode=mode), (2, 6, 7, 6))
        for mode in ("reflect", "replicate", "circular")
    ),
    Layer("conv3d", lambda: nn.Conv3d(4, 6, 3, padding=1), (2, 4, 5, 4, 6)),
    Layer("conv3d-1x1x1", lambda: nn.Conv3d(4, 6, 1), (2, 4, 3, 4, 3)),
    Layer("conv3d-1x1x3", lambda: nn.Conv3d(4, 6, (1, 1, 3), padding=(0, 0, 1)), (2, 4, 3, 4, 5)),
    Layer("conv3d-replicate", lambda: nn.Conv3d(4, 6, 3, padding=1, padding_mode="replicate"), (2, 4, 4, 4, 5)),
    Layer("convtranspose1d", lambda: nn.ConvTranspose1d(6, 8, 4, stride=2, padding=1), (2, 6, 7)),
    Layer("convtranspose2d", lambda: nn.ConvTranspose2d(6, 8, 3, stride=2, padding=1, output_padding=1), (2, 6, 5, 4)),
    Layer("convtranspose2d-groups", lambda: nn.ConvTranspose2d(8, 12, 3, stride=2, groups=4), (2, 8, 4, 5)),
    Layer("convtranspose3d", lambda: nn.ConvTranspose3d(4, 6, 2, stride=2), (2, 4, 3, 4, 3)),
    Layer("embedding", lambda: nn.Embedding(11, 6), (2, 5), vocabulary=11),
    Layer("hf-conv1d", hugging_face_conv1d, (2, 9, 8)),
    Layer("read-qkv", ReadQKV, (2, 9, 8), "qkv"),
    Layer("read-qkv-slices", ReadQKV, (2, 9, 8), "qkv[q,v]"),
    Layer("mha", SelfAttention, (2, 9, 12), "attn"),
    Layer("mha-slices", SelfAttention, (2, 9, 12), "attn[q,v]"),
    Layer("mha-out", SelfAttention, (2, 9, 12), "attn.out_proj"),
    Layer("mha-separate", lambda: SelfAttention(separate=True), (2, 9, 12), "re:attn.[qkv]_proj_weight"),
    Layer("encoder-layer", encoder_layer, (2, 9, 12), "linear"),
    Layer("parameter-table", Parameters, (2, 5, 8), "positions"),
    Layer("parameter-projection", Parameters, (2, 5, 8), "proj"),
]
LAYER = {layer.name: layer for layer in LAYERS}
