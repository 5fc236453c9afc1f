"""What a denoiser learns, against what the schedulers of diffusers do with a perfect one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import CMStochasticIterativeScheduler, DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_snr
from torch import Tensor

from visionpeft.errors import OptionError
from visionpeft.tasks.diffusion.objective import Objective, objective_of

KINDS = ("epsilon", "v_prediction", "sample")


def drawn(scheduler: Any, objective: Objective, clean: Tensor) -> Tensor:
    """What a denoiser that is always right leads to, from pure noise, in a few steps of the scheduler."""
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    scheduler.set_timesteps(10)
    latents = noise
    for number, time in enumerate(scheduler.timesteps):
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            said = (latents - clean) / scheduler.sigmas[number]
        else:
            kept = scheduler.alphas_cumprod[int(time)]
            own = (latents - kept.sqrt() * clean) / (1 - kept).sqrt()
            said = objective.target(clean, own, torch.full((len(clean),), int(time)))
        latents = scheduler.step(said, time, latents, return_dict=False)[0]
    return latents


@pytest.mark.parametrize(
    "scheduler",
    [*(DDIMScheduler(prediction_type=kind, clip_sample=False) for kind in KINDS), FlowMatchEulerDiscreteScheduler()],
    ids=[*KINDS, "flow"],
)
def test_who_hits_the_target_draws_the_picture(scheduler: Any) -> None:
    clean = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = drawn(scheduler, objective_of(scheduler), clean)
    assert torch.allclose(found, clean, atol=0.06)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_flow_mixes_along_a_line_in_the_schedulers_own_time(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    objective = objective_of(scheduler)
    clean, noise = torch.zeros(1000, 1), torch.ones(1000, 1)
    levels = torch.arange(1000)
    sigmas = objective.noisy(clean, noise, levels).squeeze(1)
    assert torch.all(sigmas.diff() > 0)
    assert sigmas[-1] == 1
    assert torch.allclose(objective.timesteps(levels), sigmas * 1000)
    assert torch.allclose(sigmas.flip(0), scheduler.sigmas[:1000].float())
    assert objective.target(clean, noise, levels).eq(1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_min_snr_weights_are_those_of_the_paper(kind: str) -> None:
    scheduler = DDPMScheduler(prediction_type=kind)
    levels = torch.arange(0, 1000, 37)
    snr = compute_snr(scheduler, levels)
    clipped = snr.clamp(max=5)
    wanted = {"epsilon": clipped / snr, "v_prediction": clipped / (snr + 1), "sample": clipped}[kind]
    assert torch.allclose(objective_of(scheduler).weights(levels, 5.0), wanted, rtol=1e-3)


def test_a_flow_has_no_min_snr_and_a_consistency_model_no_objective() -> None:
    with pytest.raises(OptionError, match=r"task\.min_snr"):
        objective_of(FlowMatchEulerDiscreteScheduler()).weights(torch.zeros(1, dtype=torch.long), 5.0)
    with pytest.raises(OptionError, match="CMStochasticIterativeScheduler says no prediction type"):
        objective_of(CMStochasticIterativeScheduler())


def test_shares_of_the_way_reach_every_level_and_no_other() -> None:
    objective = objective_of(DDPMScheduler(num_train_timesteps=10))
    shares = torch.tensor([0.0, 0.05, 0.55, 0.999, 1.0])
    assert objective.level_at(shares).tolist() == [0, 0, 5, 9, 9]
