"""What differs between diffusion pipelines, as a handful of verbs; each family is a file of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from visionpeft.backbones.pipelines import latents as vae_latents
from visionpeft.errors import OptionError

_BATCH = 16  # pictures that one call of a pipe draws


class Family(ABC):
    """How the pipelines of one architecture are conditioned, trained and sampled. Without state.

    Attributes:
        pipelines: classes of diffusers that belong to the family.
        component: attribute of the pipe that holds the denoiser.
        conditioned_by: what a picture is described by.
        needs: component → classes of diffusers that it must be of.
        guidance: scale of classifier-free guidance where a caller gives none.
        published: repository of the hub with the family's best known weights.
        pixels: side of the pictures of the published pipeline, ``pixels_a_latent`` to each of its latents.
    """

    pipelines: ClassVar[tuple[str, ...]]
    component: ClassVar[Literal["unet", "transformer"]]
    conditioned_by: ClassVar[Literal["text", "class", "nothing"]]
    needs: ClassVar[Mapping[str, tuple[str, ...]]]
    guidance: ClassVar[float]
    published: ClassVar[str]
    pixels: ClassVar[int]
    pixels_a_latent: ClassVar[int] = 8

    @abstractmethod
    def conditioning(self, pipe: Any, texts: Sequence[str]) -> dict[str, Tensor]:
        """What the denoiser takes beside noisy latents and time, a row of each tensor a text; ``""`` is no condition.

        Raises:
            UnknownNameError: a class that the pipeline does not know.
        """

    @abstractmethod
    def predict(
        self, denoiser: nn.Module, noisy: Tensor, timesteps: Tensor, conditioning: Mapping[str, Tensor]
    ) -> Tensor:
        """The denoiser's prediction, of the shape of ``noisy`` ``(B, c, h, w)``; a learned variance is cut off.

        ``timesteps`` ``(B,)`` are in the units of the pipeline's scheduler, 0 … ``num_train_timesteps``.
        """

    @abstractmethod
    def draw(
        self, pipe: Any, texts: list[str], negative: list[str] | None, size: int | None, **shared: Any
    ) -> np.ndarray:
        """Pictures ``(B, H, W, C)`` in 0 … 1 by calling the plain pipe; ``shared`` is the same for all families."""

    def prepare(self, pipe: Any) -> None:  # noqa: B027 - most families have nothing to change
        """Change of a freshly opened pipe what stands in the way of training; never what is saved."""

    def reduction(self, pipe: Any) -> int:
        """Pixels of a side that one latent stands for."""
        return vae_latents.factor(pipe.vae)

    def image_size(self, pipe: Any) -> int:
        """Pixels a side of the pictures that the pipe draws."""
        sample = getattr(pipe, self.component).config["sample_size"]
        return self.reduction(pipe) * int(sample if isinstance(sample, int) else sample[0])

    @torch.no_grad()
    def latents(self, pipe: Any, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images ``(B, 3, H, W)`` in −1 … 1 as scaled latents ``(B, c, h, w)``.

        Drawn from the posterior with ``generator``, its mode without.
        """
        return vae_latents.encode(pipe.vae, images, generator)

    @torch.no_grad()
    def pictures(self, pipe: Any, latents: Tensor) -> Tensor:
        """Scaled latents back to images ``(B, 3, H, W)`` in −1 … 1."""
        return vae_latents.decode(pipe.vae, latents).clamp(-1, 1)

    def sample(
        self,
        pipe: Any,
        texts: Sequence[str],
        *,
        seeds: Sequence[int],
        steps: int = 25,
        guidance: float | None = None,
        size: int | None = None,
        negative: str | Sequence[str] | None = None,
    ) -> Tensor:
        """Draw one picture for every text by the plain pipe, as uint8 ``(N, 3, H, W)``.

        Args:
            texts: prompts, class names, or anything where the pipeline is conditioned by nothing.
            seeds: one a picture; a picture depends on its own seed alone, whatever is drawn beside it.
            steps: of the scheduler.
            guidance: scale of classifier-free guidance; default the family's.
            size: pixels a side; default as trained.
            negative: prompts to move away from, one for all or one a picture; text-conditioned families alone.

        Raises:
            OptionError: as many texts as seeds are needed, or an option that the family's pipelines do not have.
        """
        if len(texts) != len(seeds):
            raise OptionError(f"{len(texts)} texts want as many seeds, not {len(seeds)}")
        _gather(pipe, getattr(pipe, self.component))
        against = [negative] * len(texts) if isinstance(negative, str) else list(negative or ())
        scale = self.guidance if guidance is None else guidance
        drawn = []
        for start in range(0, len(texts), _BATCH):
            part = slice(start, start + _BATCH)
            generators = [torch.Generator().manual_seed(seed) for seed in seeds[part]]
            shared = {"num_inference_steps": steps, "generator": generators, "output_type": "np"}
            if self.conditioned_by != "nothing":
                shared["guidance_scale"] = scale
            drawn.append(self.draw(pipe, list(texts[part]), against[part] or None, size, **shared))
        return _bytes(np.concatenate(drawn)) if drawn else torch.zeros(0, 3, 0, 0, dtype=torch.uint8)


def _gather(pipe: Any, denoiser: nn.Module) -> None:
    """Bring every component to the denoiser, which training may have moved."""
    device = next(denoiser.parameters()).device
    for component in pipe.components.values():
        if isinstance(component, nn.Module) and component is not denoiser:
            component.to(device)


def refuse_size(pipe: Any, size: int | None, own: int) -> None:
    """Raise OptionError for a size that a pipeline without a choice cannot draw."""
    if size not in (None, own):
        raise OptionError(f"size = {size}: a {type(pipe).__name__} draws pictures of {own} pixels alone")


def refuse_negative(pipe: Any, negative: Sequence[str] | None) -> None:
    """Raise OptionError for negative prompts where a pipeline takes none."""
    if negative is not None and any(negative):
        raise OptionError(f"negative = {negative[0]!r}: a {type(pipe).__name__} takes no negative prompts")


def _bytes(pictures: np.ndarray) -> Tensor:
    """Pictures ``(N, H, W, C)`` in 0 … 1 as uint8 ``(N, 3, H, W)``; a grey channel is repeated."""
    found = torch.from_numpy(np.ascontiguousarray((pictures * 255).round().astype(np.uint8))).permute(0, 3, 1, 2)
    return found.expand(-1, 3, -1, -1).contiguous()
