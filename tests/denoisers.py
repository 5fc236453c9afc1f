"""Small denoisers of diffusers with random weights, and adapters on them that do something."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import visionpeft as vp
from visionpeft.export.exchange.inputs import example_inputs

OPTIONS = {
    "lora": {"rank": 3, "alpha": 2.0},
    "conv_lora": {"rank": 3},
    "cp_lora": {"rank": 4},
    "flora": {"rank": 3},
    "wara": {"rank": 1},
    "salt": {"rank": 2},
    "block_lora": {"rank": 4},
    "dora": {"rank": 2},
}
"""Method → options, of ranks that differ."""


def unet(**more: object) -> nn.Module:
    """Attention, convolutions and Linears, as in Stable Diffusion."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    sizes = {"sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    kinds = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    return UNet2DConditionModel(**{**sizes, **kinds, "cross_attention_dim": 8, "attention_head_dim": 4, **more}).eval()


def unconditional() -> nn.Module:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    sizes = {"sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    return UNet2DModel(**sizes, **kinds, attention_head_dim=4).eval()


def dit() -> nn.Module:
    from diffusers import DiTTransformer2DModel

    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2, "sample_size": 4, "in_channels": 4}
    return DiTTransformer2DModel(**sizes, out_channels=8, patch_size=2, num_embeds_ada_norm=10).eval()


def sd3() -> nn.Module:
    from diffusers import SD3Transformer2DModel

    torch.manual_seed(0)
    sizes = {"sample_size": 4, "patch_size": 2, "in_channels": 4, "num_layers": 2, "attention_head_dim": 8}
    widths = {"num_attention_heads": 2, "joint_attention_dim": 16, "caption_projection_dim": 16}
    return SD3Transformer2DModel(
        **sizes, **widths, pooled_projection_dim=16, out_channels=4, pos_embed_max_size=8
    ).eval()


def flux() -> nn.Module:
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(0)
    sizes = {"in_channels": 4, "num_layers": 1, "num_single_layers": 1, "attention_head_dim": 8}
    widths = {"num_attention_heads": 2, "joint_attention_dim": 16, "pooled_projection_dim": 16}
    return FluxTransformer2DModel(**sizes, **widths, patch_size=1, axes_dims_rope=(2, 2, 4)).eval()


def adapted(model: nn.Module, method: str = "lora", targets: list[str] | None = None, **options: object) -> nn.Module:
    """With an adapter whose factors are not those it starts from."""
    vp.adapt(model, method, targets, **{**OPTIONS.get(method, {}), **options})
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, factor in vp.adapter_parameters(model).items():
            noise = torch.randn(factor.shape, generator=random)
            factor.copy_(factor * (1 + 0.2 * noise) if name.endswith("magnitude") else factor + 0.1 * noise)
    return model.eval()


@torch.no_grad()
def predicted(model: nn.Module) -> Tensor:
    """What a denoiser says to the example input of its class."""
    return model(**example_inputs(model), return_dict=False)[0]


def loaded(plain: nn.Module, folder: Path) -> nn.Module:
    """A plain network with an adapter folder of ours on it."""
    return vp.load(plain, folder).eval()


def off(found: Tensor, wanted: Tensor, base: Tensor) -> float:
    """Largest difference as a share of the largest change that the adapter makes."""
    return ((found - wanted).abs().max() / (wanted - base).abs().max()).item()


LAYERS = ["conv_in", "down_blocks.0.resnets.0.conv1", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"]


def kohya(names: dict[str, str], ranks: int = 2) -> dict[str, Tensor]:
    """LoRA of every layer: path → name in the file; alphas that differ."""
    random, model, state = torch.Generator().manual_seed(3), unet(), {}
    for index, (path, name) in enumerate(names.items()):
        weight = model.get_submodule(path).weight
        down = 0.2 * torch.randn(ranks + index, *weight.shape[1:], generator=random)
        up = 0.2 * torch.randn(weight.shape[0], ranks + index, *[1] * (weight.dim() - 2), generator=random)
        state |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        state[f"{name}.alpha"] = torch.tensor(float(index + 1))
    return state
