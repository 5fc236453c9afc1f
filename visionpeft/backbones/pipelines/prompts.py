"""What the text-conditioned families share: prompts read by one or more tokenizers, and a word where one is cut."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visionpeft.backbones.pipelines.family import Family
from visionpeft.backbones.pipelines.quiet import quiet


class TextFamily(Family):
    """A family whose pipelines have ``encode_prompt`` and are called with prompts, a height and a width."""

    conditioned_by = "text"

    @abstractmethod
    def encoded(self, pipe: Any, texts: list[str], device: torch.device) -> dict[str, Tensor]:
        """The conditioning of ``texts``, by the pipe's own ``encode_prompt``."""

    def lengths(self, pipe: Any) -> Mapping[str, int]:
        """Tokenizer of the pipe → tokens that it reads of a prompt, with its marks of begin and end."""
        return {"tokenizer": pipe.tokenizer.model_max_length}

    def calling(self, pipe: Any, negative: list[str] | None, guidance_scale: float) -> dict[str, Any]:
        """Arguments of a call that differ between the families."""
        return {"negative_prompt": negative, "guidance_scale": guidance_scale}

    @torch.no_grad()
    def conditioning(self, pipe: Any, texts: Sequence[str]) -> dict[str, Tensor]:
        self._warn_of_cut(pipe, texts)
        with quiet():
            return self.encoded(pipe, list(texts), pipe.text_encoder.device)

    def draw(
        self, pipe: Any, texts: list[str], negative: list[str] | None, size: int | None, **shared: Any
    ) -> np.ndarray:
        self._warn_of_cut(pipe, [*texts, *(negative or ())])
        size = size or self.image_size(pipe)
        own = self.calling(pipe, negative, shared.pop("guidance_scale"))
        with quiet():
            return pipe(texts, height=size, width=size, **own, **shared).images

    def _warn_of_cut(self, pipe: Any, texts: Sequence[str]) -> None:
        for name, length in self.lengths(pipe).items():
            _warn_of_cut(name, getattr(pipe, name), length, texts)


def _warn_of_cut(name: str, tokenizer: Any, length: int, texts: Sequence[str]) -> None:
    """Warn once of the texts that have more tokens than ``length``, and show what the longest of them loses."""
    room = length - tokenizer.num_special_tokens_to_add()
    bodies = {text: tokenizer(text, add_special_tokens=False, verbose=False).input_ids for text in dict.fromkeys(texts)}
    cut = [text for text in texts if len(bodies[text]) > room]
    if cut:
        body = max((bodies[text] for text in cut), key=len)
        warnings.warn(
            f"{len(cut)} of {len(texts)} prompts have more than the {length} tokens that the pipeline's {name} reads "
            f"and are cut; the longest has {len(body) + length - room} and loses {tokenizer.decode(body[room:])!r}",
            stacklevel=5,
        )
