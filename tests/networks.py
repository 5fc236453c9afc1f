"""The networks that coverage is held for: as published, and a small one of each with the same kinds of weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from visionpeft.backbones import Backbone, load

_TEXT = {"context_length": 8, "vocab_size": 50, "width": 24, "heads": 2, "layers": 2}
_HEADS = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2}
_TEXTS = {"joint_attention_dim": 12, "pooled_projection_dim": 10}

SMALL: dict[str, dict[str, Any]] = {
    "timm/vit_tiny_patch16_224": {"image_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3},
    "timm/resnet18": {"layers": (1, 1, 1, 1), "channels": (8, 12, 16, 20), "stem_width": 8, "image_size": 64},
    "timm/convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 20), "image_size": 64},
    "timm/efficientnet_b0": {"image_size": 128},  # statistics over fewer pixels would magnify rounding
    "timm/swin_tiny_patch4_window7_224": {
        "image_size": 32,
        "window_size": 4,
        "embed_dim": 12,
        "depths": (2, 2),
        "num_heads": (2, 4),
    },
    "open_clip/ViT-B-32": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 48, "head_width": 16, "patch_size": 16},
        "text_cfg": _TEXT,
    },
    "open_clip/RN50": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 64, "layers": (1, 1, 1, 1), "width": 8, "patch_size": None},
        "text_cfg": _TEXT,
    },
    "monai/UNet": {"image_size": 16, "channels": (4, 8, 12), "strides": (2, 2)},
    "monai/UNETR": {"image_size": 32, "feature_size": 4, "hidden_size": 24, "mlp_dim": 32, "num_heads": 3},
    "monai/SwinUNETR": {
        "image_size": 32,
        "feature_size": 12,
        "depths": (1, 1, 1, 1),
        "norm_name": ("group", {"num_groups": 4}),
    },
    "monai/SegResNet": {"image_size": 16, "init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)},
    "monai/DynUNet": {
        "image_size": 16,
        "kernel_size": [3] * 3,
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2] * 2,
        "filters": [4, 8, 12],
    },
    "diffusers/UNet2DConditionModel": {
        "image_size": 8,
        "block_out_channels": [16, 32],
        "cross_attention_dim": 12,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
    },
    "diffusers/UNet2DModel": {
        "image_size": 16,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "layers_per_block": 1,
    },
    "diffusers/AutoencoderKL": {
        "image_size": 16,
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "layers_per_block": 1,
    },
    "diffusers/DiTTransformer2DModel": {**_HEADS, "image_size": 8},
    "diffusers/PixArtTransformer2DModel": {
        **_HEADS,
        "image_size": 8,
        "cross_attention_dim": 16,
        "caption_channels": 12,
    },
    "diffusers/SD3Transformer2DModel": {
        **_HEADS,
        **_TEXTS,
        "image_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "caption_projection_dim": 16,
        "pos_embed_max_size": 8,
    },
    "diffusers/FluxTransformer2DModel": {
        **_HEADS,
        **_TEXTS,
        "image_size": 8,
        "in_channels": 16,
        "num_single_layers": 2,
        "axes_dims_rope": (2, 2, 4),
    },
}
"""Network → options that make it small. Without options the names are the networks as published."""

_NO_BATCH = ("img_ids", "txt_ids")  # places of tokens, the same for a whole batch


def on_meta(name: str) -> Backbone:
    return load(name, pretrained=False, device="meta")


def small(name: str) -> tuple[nn.Module, Any]:
    """A small network of random weights and two random examples, always the same."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = load(name, pretrained=False, **SMALL[name])
        for parameter in backbone.model.parameters():
            if not parameter.any():  # a zero table or gain would hide the adapters behind it
                nn.init.normal_(parameter, std=0.02)
    return backbone.model, _random_like(backbone.example_input())


def _random_like(example: Any) -> Any:
    if isinstance(example, dict):
        return {key: value if key in _NO_BATCH else _random_like(value) for key, value in example.items()}
    if example is None:
        return None
    stream, shape = torch.Generator().manual_seed(1), (2, *example.shape[1:])
    if example.is_floating_point():
        return torch.randn(shape, generator=stream)
    return torch.randint(1, _TEXT["vocab_size"], shape, generator=stream)


def outputs(model: nn.Module, example: Any) -> list[Tensor]:
    """All tensors that a network puts out for an example."""
    found = model(**example) if isinstance(example, dict) else model(example)
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor) and leaf.dim()]
