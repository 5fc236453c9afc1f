"""Optimizer groups and schedule, the frozen controls, and the choice of a learning rate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from visionpeft.errors import OptionError, StateError, TargetError
from visionpeft.surgery.trainable import train_only
from visionpeft.tasks.baselines import extract_features, nearest_centroid_predictions
from visionpeft.tasks.frozen import moving_state
from visionpeft.tasks.optimize import OptimizerOptions, build_optimizer
from visionpeft.tasks.tune import tune


def network() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3))


def rates(options: OptimizerOptions, steps: int) -> list[float]:
    optimizer, schedule = build_optimizer(nn.Linear(2, 2), options, steps)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return [*seen, optimizer.param_groups[0]["lr"]]


def test_only_trainable_parameters_are_optimized_and_vectors_do_not_decay():
    model = network()
    train_only(model, ["2", "3"])
    optimizer, _ = build_optimizer(model, OptimizerOptions(lr=0.1, head_lr=0.5, weight_decay=0.2), 10, heads=["3"])
    found = {id(p): (g["initial_lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    expected = {
        model[2].weight: (0.1, 0.0),
        model[2].bias: (0.1, 0.0),
        model[3].weight: (0.5, 0.2),
        model[3].bias: (0.5, 0.0),
    }
    assert found == {id(p): value for p, value in expected.items()}


def test_a_head_that_trains_alone_uses_the_plain_rate():
    model = network()
    train_only(model, ["3"])
    optimizer, _ = build_optimizer(model, OptimizerOptions(lr=0.1, head_lr=0.5), 10, heads=["3"])
    assert {group["initial_lr"] for group in optimizer.param_groups} == {0.1}


def test_warm_up_rises_to_the_peak_and_cosine_falls_to_zero():
    seen = rates(OptimizerOptions(lr=1.0, warmup_steps=4), 20)
    assert seen[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert seen[4:] == sorted(seen[4:], reverse=True)
    assert seen[12] == pytest.approx(0.5) and seen[20] == pytest.approx(0.0, abs=1e-12)


def test_constant_stays_constant():
    assert set(rates(OptimizerOptions(lr=0.3, schedule="constant"), 5)) == {0.3}


@pytest.mark.parametrize(
    "options", [{"lr": math.nan}, {"lr": -1.0}, {"head_lr": math.inf}, {"weight_decay": -0.1}, {"warmup_steps": -1}]
)
def test_senseless_numbers_are_refused(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        OptimizerOptions(**options)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(OptionError, match="linear"):
        OptimizerOptions(schedule="linear")  # pyright: ignore[reportArgumentType]


def test_a_warm_up_as_long_as_the_run_is_refused():
    with pytest.raises(OptionError, match="warmup_steps is 5"):
        build_optimizer(nn.Linear(1, 1), OptimizerOptions(warmup_steps=5), 5)


def test_train_only_refuses_what_cannot_train():
    model = network()
    for path in ("9", "0"):
        with pytest.raises(TargetError, match=path):
            train_only(model, [path])
    assert all(p.requires_grad for p in model.parameters())
    train_only(model, [""])
    assert all(p.requires_grad for p in model.parameters())


def test_moving_state_takes_buffers_beside_trained_factors_only():
    host, factors = nn.Linear(2, 2), nn.Module()
    factors.scale = nn.Parameter(torch.ones(2))
    factors.register_buffer("basis", torch.eye(2))
    host.register_buffer("still", torch.zeros(1))
    host.factors = factors
    train_only(host, ["factors"])
    assert set(moving_state(host)) == {"factors.scale", "factors.basis"}


def _clusters(images: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    labels = torch.arange(images) % 3
    noise = 0.3 * torch.randn(images, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    pictures = torch.eye(4)[labels].view(-1, 1, 2, 2) * 3 + noise
    return list(zip(pictures.split(4), labels.split(4), strict=True))


def test_nearest_centroid_finds_clusters_that_the_random_head_does_not():
    model = network()
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(5, 4))
    model.train()
    found = nearest_centroid_predictions(model, "3", _clusters(9, 0), _clusters(60, 1), 3)
    assert found.correct().float().mean() > 0.9
    assert all(module.training for module in model.modules())
    assert not model[3]._forward_pre_hooks


def test_features_are_what_enters_the_head():
    model = network()
    features, labels = extract_features(model, "3", _clusters(6, 0))
    images = torch.cat([pictures for pictures, _ in _clusters(6, 0)])
    torch.testing.assert_close(features, model[:3](images).detach())
    assert labels.tolist() == [0, 1, 2, 0, 1, 2]


def test_a_head_that_is_not_called_is_an_error():
    model = network()
    model.unused = nn.Linear(1, 1)
    model.forward = lambda images: model[1](images.flatten(1))
    with pytest.raises(StateError, match="unused"):
        extract_features(model, "unused", _clusters(3, 0))


def test_tune_keeps_the_best_and_the_smaller_of_equals():
    chosen = tune([0.1, 0.001, 0.01], {0.001: 0.2, 0.01: 0.9, 0.1: 0.9}.__getitem__)
    assert chosen.value == 0.01 and not chosen.at_edge
    assert chosen.scores == {0.001: 0.2, 0.01: 0.9, 0.1: 0.9}
    assert tune([1, 2], float).at_edge
    assert not tune([1], float).at_edge


def test_tune_survives_a_run_that_diverges():
    def validate(lr: float) -> float:
        if lr > 1:
            raise StateError("the loss became nan")
        return math.nan if lr > 0.5 else lr

    assert tune([10.0, 0.7, 0.3], validate).value == 0.3
    with pytest.raises(StateError, match="diverged"):
        tune([10.0, 0.7], validate)


def test_tune_needs_something_to_try():
    with pytest.raises(OptionError, match="empty"):
        tune([], float)
