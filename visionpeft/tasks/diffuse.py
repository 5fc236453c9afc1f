"""Diffusion as a LightningModule: the denoiser of a pipeline learns pictures, and is judged by loss and by samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.training_utils import compute_density_for_timestep_sampling
from torch import Tensor, nn

from visionpeft.backbones.pipelines import Pipeline
from visionpeft.errors import OptionError
from visionpeft.tasks.base import Prepare, Task
from visionpeft.tasks.diffusion.average import WeightAverage
from visionpeft.tasks.diffusion.conditions import Conditions
from visionpeft.tasks.diffusion.objective import objective_of
from visionpeft.tasks.diffusion.prior import Prior, drawn
from visionpeft.tasks.optimize import OptimizerOptions

LEVELS = 8
"""Noise levels, evenly spread, at which validation and test measure each picture, with noise of its own that is always
the same."""
SAMPLED_AT_ONCE = 16


@dataclass(frozen=True)
class DiffuseOptions:
    """How a denoiser is trained and sampled.

    Args:
        min_snr: γ of min-SNR weighting (5 is usual); None weights all noise levels alike.
        offset_noise: strength of noise that is constant over a channel (0.05 to 0.1 helps very dark or light styles).
        ema: decay of the running mean of the trained weights, which replaces them at the end; None keeps the last.
        drop_caption: share of training pictures shown without their caption, for classifier-free guidance.
        timesteps: density of the noise levels in training: ``uniform``, ``logit_normal`` or ``mode`` (SD 3's).
        checkpointing: compute the denoiser's blocks again in backward instead of keeping what is inside.
        cache_latents: encode every picture once (not with augmentation, which changes it each time).
        prior: DreamBooth's prior preservation.
        samples: pictures drawn in testing, with captions of the test part and a seed each.
        steps, guidance: of drawing; None takes the family's own guidance.
    """

    min_snr: float | None = None
    offset_noise: float = 0.0
    ema: float | None = None
    drop_caption: float = 0.1
    timesteps: str = "uniform"
    checkpointing: bool = False
    cache_latents: bool = True
    prior: Prior | None = None
    samples: int = 64
    steps: int = 25
    guidance: float | None = None


class DiffuseTask(Task):
    """Trains whatever requires a gradient in the denoiser of a pipeline, by the objective of its scheduler.

    Args:
        pipeline: taken apart by :func:`visionpeft.backbones.pipelines.open_pipeline`; its other parts stay frozen.
        captions: one a position of the data's table; none for a task that only samples.
        size: sides of the pictures in pixels.
        prepare, optimizer, seed: see :class:`visionpeft.tasks.base.Task`.
        options: see :class:`DiffuseOptions`.

    Batches are ``(images (B, 3, S, S) in [-1, 1], positions (B,))``. Logs ``train/loss`` each step and ``val/loss``
    each validation: the unweighted squared error, averaged over :data:`LEVELS`. After ``trainer.test``, ``positions``
    and ``losses`` hold the same of the test pictures, and ``sampled`` what was drawn for ``sampled_positions``.

    Raises:
        OptionError: the scheduler cannot be trained with, or has no min-SNR weights.
        StateError: see :class:`visionpeft.tasks.base.Task`.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        captions: Sequence[str] = (),
        *,
        size: int,
        prepare: Prepare | None = None,
        optimizer: OptimizerOptions | None = None,
        options: DiffuseOptions | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(pipeline.denoiser, prepare=prepare, optimizer=optimizer, seed=seed)
        self.pipeline, self.captions, self.size = pipeline, tuple(captions), size
        self.options = options or DiffuseOptions()
        self.objective = objective_of(pipeline.pipe.scheduler)
        if self.options.min_snr is not None:
            self.objective.weights(torch.zeros(1, dtype=torch.long), self.options.min_snr)  # refuses now what it must
        self.conditions = Conditions(pipeline)
        self._latents: dict[int, Tensor] = {}
        self._prior = torch.empty(0)
        self._average: WeightAverage | None = None
        self.positions, self.losses = torch.empty(0, dtype=torch.long), torch.empty(0)
        self.sampled_positions, self.sampled = torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.uint8)
        self._measured: list[tuple[Tensor, Tensor]] = []

    def configure_model(self) -> None:
        if self._is_prepared:
            return
        if self.options.prior is not None and self._is_fitting():
            self._to(self.trainer.strategy.root_device)
            self._prior = drawn(self.pipeline, self.options.prior, self.size)  # before anything is adapted
        super().configure_model()
        if self.options.checkpointing:
            self._enable_checkpointing()
        if self.options.ema is not None and any(p.requires_grad for p in self.model.parameters()):
            self._average = WeightAverage(self.model, self.options.ema)

    def on_fit_start(self) -> None:
        self._to(self.device)

    def on_validation_start(self) -> None:
        self._to(self.device)

    def on_test_start(self) -> None:
        self._to(self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, positions = batch
        dropped = (torch.rand(len(positions)) < self.options.drop_caption).tolist()
        texts = ["" if drop else self.captions[int(n)] for n, drop in zip(positions, dropped, strict=True)]
        loss = self._loss(self._encoded(images, positions), texts)
        if self.options.prior is not None:
            chosen = self._prior[torch.randint(len(self._prior), (len(positions),))].to(self.device)
            loss = loss + self.options.prior.weight * self._loss(chosen, [self.options.prior.caption] * len(chosen))
        return self.log_training(loss)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._average is not None:
            self._average.follow(self.trainer)

    def on_train_end(self) -> None:
        if self._average is not None:
            self._average.show()
            self._average = None  # from now on the mean is the model

    def on_validation_epoch_start(self) -> None:
        self._measured = []
        if self._average is not None:
            self._average.show()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._measure(batch)

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", torch.cat([losses for _, losses in self._measured]).mean(), sync_dist=True)

    def on_validation_end(self) -> None:
        if self._average is not None:
            self._average.hide()

    def on_test_epoch_start(self) -> None:
        self._measured = []

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._measure(batch)

    def on_test_epoch_end(self) -> None:
        self.positions, self.losses = map(torch.cat, zip(*self._measured, strict=True))
        count = min(self.options.samples, len(self.positions))
        self.sampled_positions = self.positions[torch.arange(count) * len(self.positions) // max(count, 1)]
        texts = [self.captions[int(n)] for n in self.sampled_positions]
        self.sampled = self.sample(texts, seeds=self.sampled_positions.tolist())

    @torch.no_grad()
    def sample(self, texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Draw a picture a text by the pipeline itself: uint8 ``(N, 3, S, S)``; equal seeds, equal noise."""
        self.model.eval()
        self._to(self.device)
        parts = [slice(start, start + SAMPLED_AT_ONCE) for start in range(0, len(texts), SAMPLED_AT_ONCE)]
        drawn = [
            self.pipeline.family.sample(
                self.pipeline.pipe,
                texts[part],
                seeds=seeds[part],
                steps=self.options.steps,
                guidance=self.options.guidance,
                size=self.size,
            ).cpu()
            for part in parts
        ]
        return torch.cat(drawn) if drawn else torch.empty(0, 3, self.size, self.size, dtype=torch.uint8)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self._average is not None:
            self._average.follow(self.trainer)  # callbacks save before this module hears of the step's end
            checkpoint["average"] = self._average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self._average is not None:
            self._average.load_state_dict(checkpoint["average"])

    def _to(self, device: torch.device) -> None:
        """Move the frozen encoders, which Lightning does not know; what is there already is left alone.

        Lightning validates in inference mode, where a base in few bits cannot even be moved to where it is.
        """
        for part in self.pipeline.pipe.components.values():
            if isinstance(part, nn.Module) and any(tensor.device != device for tensor in part.parameters()):
                part.to(device)

    def _is_fitting(self) -> bool:
        return self._trainer is not None and self.trainer.state.fn == "fit"

    def _loss(self, clean: Tensor, texts: Sequence[str]) -> Tensor:
        noise = torch.randn_like(clean)
        if self.options.offset_noise:
            noise = noise + self.options.offset_noise * torch.randn(*clean.shape[:2], 1, 1, device=clean.device)
        density = compute_density_for_timestep_sampling(
            self.options.timesteps, len(clean), logit_mean=0.0, logit_std=1.0, mode_scale=1.29, device=clean.device
        )
        levels = self.objective.level_at(density)
        errors = self._errors(clean, noise, levels, texts)
        if self.options.min_snr is not None:
            errors = errors * self.objective.weights(levels, self.options.min_snr)
        return errors.mean()

    def _errors(self, clean: Tensor, noise: Tensor, levels: Tensor, texts: Sequence[str]) -> Tensor:
        """Mean squared error ``(B,)`` of each picture."""
        noisy, wanted = self.objective.noisy(clean, noise, levels), self.objective.target(clean, noise, levels)
        told = self.conditions.of(texts, clean.device)
        said = self.pipeline.family.predict(self.model, noisy, self.objective.timesteps(levels), told)
        return (said.float() - wanted.float()).square().flatten(1).mean(1)

    @torch.no_grad()
    def _measure(self, batch: tuple[Tensor, Tensor]) -> None:
        images, positions = batch
        clean, texts = self._encoded(images, positions), [self.captions[int(n)] for n in positions]
        total = torch.zeros(len(clean))
        for number in range(LEVELS):
            share = torch.full((len(clean),), (number + 0.5) / LEVELS, device=clean.device)
            noise = torch.stack([_noise(int(n) * LEVELS + number, clean.shape[1:]) for n in positions]).to(clean)
            total += self._errors(clean, noise, self.objective.level_at(share), texts).cpu()
        self._measured.append((positions.cpu(), total / LEVELS))

    @torch.no_grad()
    def _encoded(self, images: Tensor, positions: Tensor) -> Tensor:
        """Latents of a batch, kept by position where pictures are always the same."""
        encode, names = self.pipeline.family.latents, positions.tolist()
        if not self.options.cache_latents:
            return encode(self.pipeline.pipe, images)
        if missing := [row for row, name in enumerate(names) if name not in self._latents]:
            found = encode(self.pipeline.pipe, images[missing]).cpu()
            self._latents.update(zip([names[row] for row in missing], found, strict=True))
        return torch.stack([self._latents[name] for name in names]).to(images.device)

    def _enable_checkpointing(self) -> None:
        if not getattr(self.model, "_supports_gradient_checkpointing", False):
            raise OptionError(f"task.checkpointing: {type(self.model).__name__} of diffusers does not support it")
        self.model.enable_gradient_checkpointing()  # pyright: ignore[reportCallIssue]


def _noise(seed: int, shape: Sequence[int]) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class FixedNoise(nn.Module):
    """What a denoiser says of images ``(B, 3, S, S)`` in fixed noise, halfway, without captions: for comparing two."""

    output_name = "predictions"

    def __init__(self, task: DiffuseTask, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._task = [task]  # in a list: the task is no part of this module

    def forward(self, images: Tensor) -> Tensor:
        (task,) = self._task
        clean = task.pipeline.family.latents(task.pipeline.pipe, images)
        noise = torch.stack([_noise(n, clean.shape[1:]) for n in range(len(clean))]).to(clean)
        levels = task.objective.level_at(torch.full((len(clean),), 0.5, device=clean.device))
        told = task.conditions.of([""] * len(clean), clean.device)
        noisy = task.objective.noisy(clean, noise, levels)
        return task.pipeline.family.predict(self.network, noisy, task.objective.timesteps(levels), told)
