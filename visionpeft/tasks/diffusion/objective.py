"""What a denoiser learns to predict, as the scheduler of its pipeline says: noise, velocity, the picture, or a flow."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from visionpeft.errors import OptionError


class Objective(ABC):
    """Noise levels ``0 … steps - 1``, from nearly clean to nearly noise, and what is asked of the denoiser there.

    All tensors are batch-first; ``levels`` is int64 ``(B,)``.
    """

    steps: int

    def level_at(self, share: Tensor) -> Tensor:
        """The levels at shares of the way from clean to noise, in [0, 1)."""
        return (share * self.steps).long().clamp(0, self.steps - 1)

    @abstractmethod
    def timesteps(self, levels: Tensor) -> Tensor:
        """Time as the pipeline's scheduler writes it."""

    @abstractmethod
    def noisy(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """The mixture that the denoiser sees."""

    @abstractmethod
    def target(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        """What it should say of it."""

    @abstractmethod
    def weights(self, levels: Tensor, min_snr: float) -> Tensor:
        """Weights ``(B,)`` of the squared errors.

        Hang et al., Efficient Diffusion Training via Min-SNR Weighting Strategy, ICCV 2023.

        Raises:
            OptionError: the objective has no such weighting.
        """


class Diffusion(Objective):
    """The DDPM family: ``√ᾱ·x + √(1-ᾱ)·noise``; predicts ``epsilon``, ``v_prediction`` or ``sample``.

    Ho et al., Denoising Diffusion Probabilistic Models, NeurIPS 2020; Salimans and Ho, Progressive Distillation for
    Fast Sampling of Diffusion Models, ICLR 2022 (velocity).
    """

    def __init__(self, config: Any) -> None:
        self._scheduler: Any = DDPMScheduler.from_config(config)
        self.prediction: str = self._scheduler.config.prediction_type
        self.steps = int(self._scheduler.config.num_train_timesteps)

    def timesteps(self, levels: Tensor) -> Tensor:
        return levels

    def noisy(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        return self._scheduler.add_noise(clean, noise, levels)

    def target(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        if self.prediction == "epsilon":
            return noise
        return clean if self.prediction == "sample" else self._scheduler.get_velocity(clean, noise, levels)

    def weights(self, levels: Tensor, min_snr: float) -> Tensor:
        kept = self._scheduler.alphas_cumprod.to(levels.device)[levels]
        clipped = (kept / (1 - kept)).clamp(max=min_snr)  # of the error of the picture itself
        scale = {"epsilon": (1 - kept) / kept, "v_prediction": 1 - kept, "sample": torch.ones_like(kept)}
        return clipped * scale[self.prediction]


class Flow(Objective):
    """Rectified flow: ``(1-σ)·x + σ·noise``; predicts ``noise - x``.

    Lipman et al., Flow Matching for Generative Modeling, ICLR 2023; Esser et al., Scaling Rectified Flow Transformers
    for High-Resolution Image Synthesis, ICML 2024.
    """

    def __init__(self, config: Any) -> None:
        scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(config)
        self.steps = int(scheduler.config.num_train_timesteps)
        self._sigmas = scheduler.sigmas[: self.steps].flip(0).float()

    def timesteps(self, levels: Tensor) -> Tensor:
        return self._sigma(levels) * self.steps

    def noisy(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        sigma = self._sigma(levels).view(-1, *[1] * (clean.ndim - 1)).to(clean.dtype)
        return (1 - sigma) * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, levels: Tensor) -> Tensor:
        return noise - clean

    def weights(self, levels: Tensor, min_snr: float) -> Tensor:
        raise OptionError(
            "task.min_snr: min-SNR weights belong to noise and velocity prediction; this pipeline's "
            "scheduler is a flow: leave min_snr out, and choose task.timesteps instead"
        )

    def _sigma(self, levels: Tensor) -> Tensor:
        return self._sigmas.to(levels.device)[levels]


def objective_of(scheduler: Any) -> Objective:
    """The objective that a scheduler of diffusers samples with.

    Raises:
        OptionError: the scheduler is of a kind that no training is known for (such as consistency models).
    """
    name = type(scheduler).__name__
    if name.startswith("FlowMatch"):
        return Flow(scheduler.config)
    if getattr(scheduler.config, "prediction_type", None) not in ("epsilon", "v_prediction", "sample"):
        raise OptionError(
            f"the pipeline's scheduler {name} says no prediction type that can be trained: it needs epsilon, "
            "v_prediction or sample, or a FlowMatch… scheduler"
        )
    return Diffusion(scheduler.config)
