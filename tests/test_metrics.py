"""Figures against values worked out by hand, and the coverage of the intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from visionpeft.errors import OptionError
from visionpeft.metrics import (
    Predictions,
    bootstrap_interval,
    calibration_interval,
    classifier_metrics,
    nearest_centroid,
)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(300):
        low, high = bootstrap_interval(rng.random(200) < 0.7, level=0.9, draws=400, seed=trial)
        hits += low <= 0.7 <= high
    assert 0.84 < hits / 300 < 0.95


def test_the_interval_narrows_with_more_images_and_repeats_with_its_seed():
    right = np.arange(4000) % 4 > 0
    low, high = bootstrap_interval(right, seed=1)
    assert (low, high) == bootstrap_interval(right, seed=1)
    assert low < 0.75 < high
    few_low, few_high = bootstrap_interval(right[:400], seed=1)
    assert few_high - few_low > 2.5 * (high - low)


def test_runs_that_disagree_widen_the_interval():
    agree = np.full((3, 1000), 0.0)
    agree[:, :800] = 1
    disagree = agree.copy()
    disagree[0, 600:800], disagree[1, 800:] = 0, 1  # 0.6, 1.0, 0.8: the same mean
    narrow, wide = bootstrap_interval(agree), bootstrap_interval(disagree)
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_a_paired_difference_is_sharper_than_two_intervals():
    rng = np.random.default_rng(0)
    weaker = (rng.random(1000) < 0.7).astype(float)
    stronger = np.maximum(weaker, rng.random(1000) < 0.1)
    low, high = bootstrap_interval(stronger - weaker)
    assert 0 < low < (stronger - weaker).mean() < high
    alone = bootstrap_interval(stronger)
    assert high - low < alone[1] - alone[0]


@pytest.mark.parametrize("bad", [[], np.zeros((2, 2, 2))])
def test_scores_of_a_wrong_shape_are_refused(bad):
    with pytest.raises(OptionError, match="images"):
        bootstrap_interval(bad)


@pytest.mark.parametrize("options", [{"level": 1.0}, {"level": 0}, {"draws": 0}])
def test_senseless_interval_options_are_refused(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        bootstrap_interval([0, 1], **options)


def _predictions(classes: int, images: int = 400, seed: int = 0) -> Predictions:
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=draw)
    logits = torch.randn(images, classes, generator=draw)
    logits[torch.arange(images), labels] += 1.0
    return Predictions(logits, labels)


def test_summary_agrees_with_counting():
    found = _predictions(8)
    order = found.logits.argsort(1, descending=True)
    summary = found.summary(draws=200)
    assert summary["top1"].value == (order[:, 0] == found.labels).double().mean().item()
    assert summary["top5"].value == pytest.approx((order[:, :5] == found.labels[:, None]).any(1).float().mean().item())
    for estimate in summary.values():
        assert estimate.low < estimate.high
    assert summary["top1"].low < summary["top1"].value < summary["top1"].high


def test_top5_of_five_classes_is_not_reported():
    assert set(_predictions(5).summary(draws=10)) == {"top1", "ece"}


def test_calibration_error_by_hand():
    """Four answers at confidence .9, three right: |.75 - .9|; its interval is built from the same bins."""
    right = torch.tensor([1.0, 1, 1, 0])
    logits = torch.tensor([[0.9, 0.1]] * 4).log()
    found = Predictions(logits, 1 - right.long())
    assert found.summary(draws=10)["ece"].value == pytest.approx(0.15)
    always = calibration_interval(np.full(50, 0.9), np.ones(50))
    assert always == pytest.approx((0.1, 0.1))


def test_running_metrics_agree_with_the_summary_over_batches():
    found, metrics = _predictions(8), classifier_metrics(8, "val/")
    for logits, labels in zip(found.logits.split(64), found.labels.split(64), strict=True):
        metrics.update(logits.softmax(1), labels)
    summary = found.summary(draws=10)
    for name, value in metrics.compute().items():
        assert value.item() == pytest.approx(summary[name.removeprefix("val/")].value, abs=1e-6)


def test_confusion_has_labels_as_rows():
    found = Predictions(torch.eye(3)[[1, 1, 2]], torch.tensor([0, 1, 2]))
    assert found.confusion().tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_a_row_of_nan_is_never_correct():
    logits = torch.tensor([[float("nan")] * 2, [0.0, 1.0]])
    assert Predictions(logits, torch.tensor([0, 1])).correct().tolist() == [False, True]


def test_predictions_must_fit_their_labels():
    with pytest.raises(OptionError, match="labels"):
        Predictions(torch.zeros(3, 2), torch.zeros(2, dtype=torch.long))


def test_nearest_centroid_goes_by_direction_not_by_length():
    features = torch.tensor([[1.0, 0.0], [100.0, 1.0], [0.0, 1.0], [1.0, 50.0]])
    scores = nearest_centroid(features, torch.tensor([0, 0, 1, 1]), torch.tensor([[0.01, 0.0], [0.0, 500.0]]), 2)
    assert scores.argmax(1).tolist() == [0, 1]
    assert scores.max() <= 1 + 1e-6


def test_nearest_centroid_needs_every_class():
    with pytest.raises(OptionError, match=r"\[1\]"):
        nearest_centroid(torch.ones(2, 3), torch.tensor([0, 2]), torch.ones(1, 3), 3)
