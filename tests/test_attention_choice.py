"""Which attention runs: xformers on CUDA, and a reason wherever it does not serve."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from pipelines import small_pipe

from visionpeft.backbones.cuda_attention import SDPA, attention_backend, why_no_xformers
from visionpeft.backbones.pipelines.attention import XFormersOnCuda, choose_attention


@pytest.fixture
def asked_anew():
    why_no_xformers.cache_clear()
    yield
    why_no_xformers.cache_clear()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without CUDA is meant")
def test_without_cuda_the_reason_is_said(asked_anew: None):
    assert attention_backend() == f"{SDPA} (xformers serves CUDA only, and there is no CUDA device)"


def test_an_xformers_that_does_not_load_is_no_error(asked_anew: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package built for another CUDA, as far as importing goes: the device itself cannot be had here."""
    (tmp_path / "xformers").mkdir()
    (tmp_path / "xformers" / "__init__.py").touch()
    (tmp_path / "xformers" / "ops.py").write_text("raise OSError('libcudart.so.13: cannot open')")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "xformers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert attention_backend() == f"{SDPA} (xformers does not load: libcudart.so.13: cannot open)"


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "PixArtAlphaPipeline", "DDPMPipeline"])
def test_a_model_meant_for_cuda_attends_the_same_on_the_cpu(name: str):
    pipe = small_pipe(name)
    model = getattr(pipe, "unet", None) or pipe.transformer
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    assert {type(layer.processor) for layer in layers} == {AttnProcessor2_0}
    stream = torch.Generator().manual_seed(0)
    for layer in layers:
        x = torch.randn(2, 9, layer.query_dim, generator=stream)
        text = torch.randn(2, 5, layer.cross_attention_dim, generator=stream) if layer.is_cross_attention else None
        if layer.group_norm is not None:
            x = x.transpose(1, 2).reshape(2, -1, 3, 3)
        expected = layer(x, text)
        layer.set_processor(XFormersOnCuda())
        assert torch.equal(layer(x, text), expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine without CUDA is meant")
def test_without_xformers_nothing_is_touched_and_the_note_says_why(asked_anew: None):
    unet = small_pipe("DDPMPipeline").unet
    assert choose_attention(unet) == f"attention: {SDPA} (xformers serves CUDA only, and there is no CUDA device)"
    processors = [module.processor for module in unet.modules() if isinstance(module, Attention)]
    assert processors and all(type(processor) is AttnProcessor2_0 for processor in processors)
