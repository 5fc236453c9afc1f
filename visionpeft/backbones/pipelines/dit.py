"""``DiTPipeline``: a transformer on the latents of a VAE, told by a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.models.embeddings import LabelEmbedding
from torch import Tensor, nn

from visionpeft.backbones.pipelines.family import Family, refuse_negative, refuse_size
from visionpeft.errors import unknown


class DiT(Family):
    """Scalable Diffusion Models with Transformers, 2023."""

    pipelines = ("DiTPipeline",)
    component = "transformer"
    conditioned_by = "class"
    needs: ClassVar = {"transformer": ("DiTTransformer2DModel",), "vae": ("AutoencoderKL",)}
    guidance = 4.0
    published = "facebook/DiT-XL-2-256"
    pixels = 256

    def prepare(self, pipe: Any) -> None:
        # Left alone, every block forgets labels on its own while training: classes are dropped by the task, for all.
        for module in pipe.transformer.modules():
            if isinstance(module, LabelEmbedding):
                module.dropout_prob = 0.0
        if pipe.labels and "id2label" not in pipe.config:  # diffusers forgets the names when it saves
            pipe.register_to_config(id2label=_by_id(pipe.labels))

    def conditioning(self, pipe: Any, texts: Sequence[str]) -> dict[str, Tensor]:
        return {"class_labels": torch.tensor(self._ids(pipe, texts), device=pipe.transformer.device)}

    def _ids(self, pipe: Any, texts: Sequence[str]) -> list[int]:
        """The numbers of classes by their names; that of no class is the number of classes."""
        known = {"": int(pipe.transformer.config["num_embeds_ada_norm"]), **pipe.labels}
        for text in texts:
            if text not in known:
                raise unknown("class of this pipeline", text, pipe.labels)
        return [known[text] for text in texts]

    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        return denoiser(noisy, timesteps, **conditioning).sample[:, : noisy.shape[1]]

    def draw(
        self, pipe: Any, texts: list[str], negative: list[str] | None, size: int | None, **shared: Any
    ) -> np.ndarray:
        refuse_size(pipe, size, self.image_size(pipe))
        refuse_negative(pipe, negative)
        return pipe(self._ids(pipe, texts), **shared).images


def _by_id(labels: Mapping[str, int]) -> dict[str, str]:
    """Names by number, as ``model_index.json`` keeps them; the names of one class are joined by commas."""
    named: dict[str, list[str]] = {}
    for label, number in labels.items():
        named.setdefault(str(number), []).append(label)
    return {number: ", ".join(names) for number, names in named.items()}
