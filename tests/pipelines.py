"""A pipeline of every family in small: stock classes, random weights, tokenizers of a few words."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

SIZE = 16  # pixels a side; two to a latent
LENGTH = 8  # tokens that the CLIP encoders read
_BLOCKS: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
}
_LATENT = {"sample_size": SIZE // 2, "in_channels": 4}
_HEADS = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 2}


def vae() -> AutoencoderKL:
    return AutoencoderKL(
        sample_size=SIZE,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.7,
        shift_factor=0.0,
    )


def clip(kind: Any = CLIPTextModel, width: int = 16) -> Any:
    config = CLIPTextConfig(
        vocab_size=64,
        hidden_size=width,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=10,
        max_position_embeddings=LENGTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return kind(config)


def clip_tokenizer() -> Any:
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters]
    return CLIPTokenizer({word: i for i, word in enumerate(words)}, [], model_max_length=LENGTH)


def t5() -> Any:
    return T5EncoderModel(T5Config(vocab_size=40, d_model=32, d_kv=4, d_ff=24, num_layers=2, num_heads=2))


def t5_tokenizer() -> Any:
    words = ["<pad>", "</s>", "<unk>", "▁", *string.ascii_lowercase]
    return T5Tokenizer([(word, -1.0) for word in words], extra_ids=0)


def _stable_diffusion() -> Any:
    unet = diffusers.UNet2DConditionModel(**_LATENT, **_BLOCKS, out_channels=4, cross_attention_dim=16)
    parts = {"vae": vae(), "text_encoder": clip(), "tokenizer": clip_tokenizer(), "unet": unet}
    checker: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return diffusers.StableDiffusionPipeline(
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1), **parts, **checker
    )


def _sdxl() -> Any:
    unet = diffusers.UNet2DConditionModel(
        **_LATENT,
        **_BLOCKS,
        out_channels=4,
        cross_attention_dim=28,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=10 + 6 * 4,
        use_linear_projection=True,
    )
    encoders = {"text_encoder": clip(), "text_encoder_2": clip(CLIPTextModelWithProjection, 12)}
    tokenizers = {"tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer()}
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    return diffusers.StableDiffusionXLPipeline(vae=vae(), unet=unet, scheduler=scheduler, **encoders, **tokenizers)


def _dit() -> Any:
    transformer = diffusers.DiTTransformer2DModel(**_LATENT, **_HEADS, out_channels=8)
    classes = {0: "cat", 1: "dog"}
    pipe = diffusers.DiTPipeline(transformer, vae(), DDIMScheduler(clip_sample=False, steps_offset=1), classes)
    pipe.register_to_config(id2label=classes)  # as the published folder has it
    return pipe


def _pixart() -> Any:
    transformer = diffusers.PixArtTransformer2DModel(
        **_LATENT, **_HEADS, cross_attention_dim=16, caption_channels=32, out_channels=8
    )
    parts = {"tokenizer": t5_tokenizer(), "text_encoder": t5(), "vae": vae(), "transformer": transformer}
    return diffusers.PixArtAlphaPipeline(scheduler=DDIMScheduler(clip_sample=False, steps_offset=1), **parts)


def _sd3() -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        **_LATENT,
        **_HEADS,
        out_channels=4,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=20,
        pos_embed_max_size=8,
    )
    encoders = {
        "text_encoder": clip(CLIPTextModelWithProjection),
        "text_encoder_2": clip(CLIPTextModelWithProjection, 12),
    }
    parts = {"tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer(), "tokenizer_3": t5_tokenizer()}
    return diffusers.StableDiffusion3Pipeline(
        transformer, FlowMatchEulerDiscreteScheduler(), vae(), text_encoder_3=t5(), **encoders, **parts
    )


def _flux() -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=16,
        guidance_embeds=True,
        axes_dims_rope=(2, 2, 4),
    )
    parts = {"tokenizer": clip_tokenizer(), "tokenizer_2": t5_tokenizer(), "text_encoder": clip()}
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return diffusers.FluxPipeline(scheduler, vae(), text_encoder_2=t5(), transformer=transformer, **parts)


def _ddpm() -> Any:
    unet = diffusers.UNet2DModel(
        sample_size=SIZE,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
        layers_per_block=1,
    )
    return diffusers.DDPMPipeline(unet, DDPMScheduler())


PIPELINES: dict[str, Callable[[], Any]] = {
    "DDPMPipeline": _ddpm,
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionXLPipeline": _sdxl,
    "DiTPipeline": _dit,
    "PixArtAlphaPipeline": _pixart,
    "StableDiffusion3Pipeline": _sd3,
    "FluxPipeline": _flux,
}
"""Class of diffusers → one that is built in a moment."""


def small_pipe(name: str) -> Any:
    """A small pipeline, always the same; nothing in its denoiser starts at zero, which would hide what lies before."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = PIPELINES[name]()
        denoiser: nn.Module = getattr(pipe, "unet", None) or pipe.transformer
        for parameter in denoiser.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
    return pipe
