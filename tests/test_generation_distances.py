"""KID and FID of features against torchmetrics, known Gaussians and repeated draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from visionpeft.errors import OptionError
from visionpeft.metrics.generation import fid, fid_floor, kid


class AsTheyAre(nn.Module):
    """Lets torchmetrics, which wants pictures, take features."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.num_features = size

    def forward(self, features: Tensor) -> Tensor:
        return features


def gaussian(count: int, size: int, seed: int, shift: float = 0.0, spread: float = 1.0) -> Tensor:
    return shift + spread * torch.randn(count, size, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize(("n", "m"), [(300, 300), (90, 60), (20, 12)])
def test_fid_is_torchmetrics_formula_also_with_fewer_pictures_than_features(n: int, m: int):
    real, fake = gaussian(n, 24, 0), gaussian(m, 24, 1, shift=0.4, spread=1.3)
    theirs = FrechetInceptionDistance(feature=AsTheyAre(24)).set_dtype(torch.float64)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    torch.testing.assert_close(fid(real, fake), theirs.compute().item(), rtol=1e-5, atol=1e-5)


def test_kid_is_torchmetrics_formula():
    real, fake = gaussian(80, 24, 0), gaussian(80, 24, 1, shift=0.3)
    theirs = KernelInceptionDistance(feature=AsTheyAre(24), subsets=1, subset_size=80).set_dtype(torch.float64)
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    torch.testing.assert_close(kid(real, fake).value, 1000 * theirs.compute()[0].item(), rtol=1e-6, atol=1e-6)


def test_fid_of_many_pictures_is_the_distance_of_the_gaussians():
    found = fid(gaussian(20_000, 4, 0), gaussian(20_000, 4, 1, shift=1.0, spread=2.0))
    assert found == pytest.approx(4 * (1 + 1), rel=0.03)  # a dimension: (μ−μ')² + (σ−σ')² = 1 + 1


def test_the_floor_is_what_small_samples_add():
    real = gaussian(600, 16, 0)
    few, many = fid_floor(real, 24), fid_floor(real, 300)
    assert 0 < many < few / 3
    assert fid(real, gaussian(24, 16, 9)) == pytest.approx(few, rel=0.3)


def test_kid_has_no_bias_where_there_is_no_difference():
    values = [kid(gaussian(12, 8, 2 * k), gaussian(20, 8, 2 * k + 1), draws=2).value for k in range(200)]
    mean, error = torch.tensor(values).mean(), torch.tensor(values).std() / 200**0.5
    assert abs(mean) < 3 * error


def test_kid_of_unequal_sizes_is_the_mean_over_equal_ones():
    real, fake = gaussian(40, 8, 0), gaussian(24, 8, 1, shift=0.5)
    generator = torch.Generator().manual_seed(0)
    chosen = [torch.randperm(40, generator=generator)[:24] for _ in range(400)]
    subsets = torch.tensor([kid(real[rows], fake, draws=2).value for rows in chosen])
    assert kid(real, fake).value == pytest.approx(subsets.mean().item(), rel=0.03)


def test_the_interval_of_kid_covers_the_truth_as_often_as_it_says():
    truth = kid(gaussian(3000, 6, 1000), gaussian(3000, 6, 1001, shift=0.5), draws=2).value
    found = [kid(gaussian(50, 6, k), gaussian(40, 6, k + 500, shift=0.5), level=0.9) for k in range(150)]
    hits = sum(estimate.low <= truth <= estimate.high for estimate in found)
    assert 0.8 < hits / 150 < 0.97


def test_equal_arguments_give_equal_intervals_and_the_seed_matters():
    real, fake = gaussian(30, 6, 0), gaussian(30, 6, 1)
    assert kid(real, fake) == kid(real, fake)
    assert kid(real, fake).value == kid(real, fake, seed=1).value
    assert kid(real, fake).low != kid(real, fake, seed=1).low


@pytest.mark.parametrize("distance", [fid, kid])
def test_what_cannot_be_compared_is_refused(distance):
    with pytest.raises(OptionError, match=r"\(9, 4\) and \(9, 5\)"):
        distance(gaussian(9, 4, 0), gaussian(9, 5, 1))
    with pytest.raises(OptionError, match="at least"):
        distance(gaussian(9, 4, 0), gaussian(1, 4, 1))
    with pytest.raises(OptionError, match="not finite"):
        distance(gaussian(9, 4, 0), gaussian(9, 4, 1) / 0)


def test_a_floor_needs_pictures_on_both_sides():
    with pytest.raises(OptionError, match=r"2 … 7 with 9 real pictures, found 8"):
        fid_floor(gaussian(9, 4, 0), 8)
