"""The tools that a file is for, asked to load it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from visionpeft.errors import StateError
from visionpeft.export.exchange.limits import LOADED_BY_PEFT

PIPELINES = {
    "UNet2DConditionModel": "StableDiffusionPipeline",
    "SD3Transformer2DModel": "StableDiffusion3Pipeline",
    "FluxTransformer2DModel": "FluxPipeline",
}
"""Class of a denoiser → a pipeline of diffusers that loads LoRA files into it."""


def needs(form: str) -> str:
    """The package that loads a format."""
    return "peft" if form in LOADED_BY_PEFT else "lycoris"


def check_installed(form: str) -> None:
    """Raise :class:`StateError` where the tool that a format is checked with is missing."""
    if importlib.util.find_spec(needs(form)) is None:
        package = {"lycoris": "lycoris-lora"}.get(needs(form), needs(form))
        raise StateError(
            f"--to {form}: the file is checked by loading it with {package}, which is not installed: "
            "pip install 'visionpeft[exchange]'"
        )


def tool_of(form: str) -> str:
    """Name and version of what loads a format here, for messages."""
    package = {"peft": "peft", "lycoris": "lycoris-lora"}.get(form, "diffusers")
    return f"{package} {importlib.metadata.version(package)}"


def load(form: str, path: Path, denoiser: nn.Module, component: str) -> nn.Module:
    """Let the tool load a file into a plain denoiser, as its documentation says; returns what is to be called."""
    loader = {"peft": _by_peft, "lycoris": _by_lycoris}.get(form, _by_diffusers)
    with torch.random.fork_rng(devices=[]):  # peft starts factors at random before it fills them
        return loader(path, denoiser, component).eval()


def _by_peft(path: Path, denoiser: nn.Module, component: str) -> nn.Module:
    from peft import PeftModel

    with _quiet():
        return PeftModel.from_pretrained(denoiser, str(path))  # pyright: ignore[reportArgumentType]


def _by_lycoris(path: Path, denoiser: nn.Module, component: str) -> nn.Module:
    from lycoris import create_lycoris_from_weights

    with _quiet():
        create_lycoris_from_weights(1.0, str(path), denoiser)[0].apply_to()
    return denoiser


def _by_diffusers(path: Path, denoiser: nn.Module, component: str) -> nn.Module:
    pipeline = pipeline_of(denoiser, component)
    with _quiet():
        if pipeline is None:
            denoiser.load_lora_adapter(str(path), prefix=component)  # pyright: ignore[reportCallIssue]
        else:
            pipeline.load_lora_weights(str(path))
    return denoiser


def pipeline_of(denoiser: nn.Module, component: str) -> Any:
    """A pipeline of diffusers around a denoiser, with nothing else in it; None where none loads LoRA files."""
    import diffusers

    name = PIPELINES.get(type(denoiser).__name__)
    if name is None:
        return None
    if getattr(denoiser.config, "addition_embed_type", None) == "text_time":
        name = "StableDiffusionXLPipeline"
    kind = getattr(diffusers, name)
    needed = [p.name for p in inspect.signature(kind.__init__).parameters.values() if p.default is inspect._empty]
    optional = {"requires_safety_checker": False} if name == "StableDiffusionPipeline" else {}
    return kind(**{key: None for key in needed if key != "self"} | {component: denoiser} | optional)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the remarks of the tools: that no text encoder is there, that dtypes are cast, and the like."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "LyCORIS", "peft")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
