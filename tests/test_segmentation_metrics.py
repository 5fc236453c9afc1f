"""Figures of masks against values worked out by hand, and against MONAI and scipy on random ones."""

from __future__ import annotations

import math

import pytest
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice
from monai.metrics.meaniou import compute_iou
from monai.metrics.surface_dice import compute_surface_dice
from scipy.ndimage import binary_erosion, distance_transform_edt

from visionpeft.errors import DataError, OptionError
from visionpeft.metrics.intervals import bootstrap_interval
from visionpeft.metrics.scores import Scores, volume_tertiles
from visionpeft.metrics.segmentation import dice_by_class, score_case

LESION = ("background", "lesion")


def box(shape: tuple[int, ...], *sides: tuple[int, int], label: int = 1) -> torch.Tensor:
    mask = torch.zeros(shape, dtype=torch.long)
    mask[tuple(slice(*side) for side in sides)] = label
    return mask


def blobs(seed: int, shape: tuple[int, ...], classes: int) -> torch.Tensor:
    """A random mask with connected regions, not noise."""
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, *[extent // 4 for extent in shape], generator=draw)
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return torch.nn.functional.interpolate(coarse, shape, mode=mode)[0].argmax(0)


def one_hot(mask: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(mask, classes).movedim(-1, 0)[None].float()


def test_a_shifted_square_by_hand():
    """4×4 squares, one pixel apart: 12 of 16 shared, a row of 4 surface pixels at distance 1 each way."""
    truth, guess = box((10, 12), (2, 6), (2, 6)), box((10, 12), (3, 7), (2, 6))
    found = score_case(guess, truth, LESION, (1.0, 1.0), tolerance=0.5)
    assert found.dice.item() == 24 / 32 and found.iou.item() == 12 / 20
    assert found.volume_error.item() == 0 and found.volume.item() == 16 and found.unit == "px"
    assert found.hd95.item() == 1.0
    # Surfaces are rings of 12. Of the guess's, 4 lie outside and 2 inside the true square (its top row's middle); the
    # other 6, on the sides, are shared. The same holds the other way round.
    assert found.nsd.item() == 12 / 24
    assert score_case(guess, truth, LESION, (1.0, 1.0)).nsd.item() == 1.0


def test_distances_are_in_millimetres_and_volumes_in_millilitres():
    truth, guess = box((20, 8, 8), (2, 6), (2, 6), (2, 6)), box((20, 8, 8), (4, 8), (2, 6), (2, 6))
    found = score_case(guess, truth, LESION, (5.0, 1.0, 2.0))
    assert found.hd95.item() == 10.0
    assert found.volume.item() == pytest.approx(64 * 10 / 1000) and found.unit == "ml"
    bigger = score_case(box((20, 8, 8), (2, 8), (2, 6), (2, 6)), truth, LESION, (5.0, 1.0, 2.0))
    assert bigger.volume_error.item() == 0.5


@pytest.mark.parametrize("shape, spacing", [((40, 48), (0.5, 2.0)), ((24, 20, 28), (1.0, 1.5, 3.0))])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_figures_are_those_of_monai(shape, spacing, seed):
    truth, guess, names = blobs(seed, shape, 3), blobs(seed + 10, shape, 3), ("background", "a", "b")
    found = score_case(guess, truth, names, spacing, tolerance=1.5)
    maps, masks = one_hot(guess, 3), one_hot(truth, 3)
    torch.testing.assert_close(found.dice.float(), compute_dice(maps, masks, include_background=False))
    torch.testing.assert_close(found.iou.float(), compute_iou(maps, masks, include_background=False))
    hd95 = compute_hausdorff_distance(maps, masks, percentile=95, spacing=spacing)
    torch.testing.assert_close(found.hd95.float(), hd95)
    nsd = compute_surface_dice(maps, masks, [1.5, 1.5], spacing=spacing)
    torch.testing.assert_close(found.nsd.float(), nsd)
    torch.testing.assert_close(dice_by_class(guess, truth, 3), found.dice[0])


def test_distances_are_those_of_a_distance_transform():
    shape, spacing = (24, 20, 28), (1.0, 1.5, 3.0)
    truth, guess = blobs(3, shape, 2), blobs(4, shape, 2)
    edges = [mask & ~binary_erosion(mask) for mask in ((truth == 1).numpy(), (guess == 1).numpy())]
    fields = [torch.from_numpy(distance_transform_edt(~edge, sampling=spacing)) for edge in edges]
    to_truth, to_guess = fields[0][torch.from_numpy(edges[1])], fields[1][torch.from_numpy(edges[0])]
    found = score_case(guess, truth, LESION, spacing)
    assert found.hd95.item() == pytest.approx(max(d.quantile(0.95).item() for d in (to_truth, to_guess)), rel=1e-6)
    assert found.nsd.item() == pytest.approx((torch.cat([to_truth, to_guess]) <= 2.0).double().mean().item())


def test_an_object_at_the_border_has_its_surface_there():
    truth, guess = box((6, 6), (0, 3), (0, 6)), box((6, 6), (0, 4), (0, 6))
    assert score_case(guess, truth, LESION, (1.0, 1.0)).hd95.item() == 1.0


def test_both_empty_agree_and_have_no_distance():
    empty = torch.zeros(6, 8, dtype=torch.long)
    found = score_case(empty, empty, LESION, (1.0, 1.0))
    assert found.dice.item() == 1 and found.iou.item() == 1 and found.volume.item() == 0
    assert all(math.isnan(getattr(found, name).item()) for name in ("hd95", "nsd", "volume_error"))


def test_a_missed_or_invented_object_costs_the_diagonal():
    empty, square = torch.zeros(30, 40, dtype=torch.long), box((30, 40), (2, 6), (2, 6))
    missed, invented = score_case(empty, square, LESION, (2.0, 2.0)), score_case(square, empty, LESION, (2.0, 2.0))
    for found in (missed, invented):
        assert (found.dice.item(), found.iou.item(), found.nsd.item(), found.hd95.item()) == (0, 0, 0, 100)
    assert missed.volume_error.item() == -1 and math.isnan(invented.volume_error.item())


@pytest.mark.parametrize(
    "guess", [torch.zeros(4, 5), torch.zeros(3, 4, dtype=torch.long), box((4, 5), (0, 1), label=2)]
)
def test_masks_that_do_not_fit_are_refused(guess):
    with pytest.raises(DataError, match=r"prediction"):
        score_case(guess, torch.zeros(4, 5, dtype=torch.long), LESION, (1.0, 1.0))


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 0.0), (1.0, math.nan)])
def test_a_senseless_spacing_is_refused(spacing):
    empty = torch.zeros(4, 5, dtype=torch.long)
    with pytest.raises(DataError, match="spacing"):
        score_case(empty, empty, LESION, spacing)


def scores(cases: int = 9, classes: tuple[str, ...] = ("core", "edema"), seed: int = 0) -> Scores:
    draw = torch.Generator().manual_seed(seed)
    columns = torch.rand(6, cases, len(classes), generator=draw, dtype=torch.float64)
    return Scores(*columns, classes=classes, axes=3)


def test_summary_averages_what_is_defined():
    found = scores()
    found.hd95[0, 0] = found.hd95[1] = torch.nan
    found.volume_error[:] = torch.tensor([-0.5, 0.25])
    summary = found.summary(draws=300)
    assert summary["dice"].value == pytest.approx(found.dice.mean().item())
    assert summary["dice"].low < summary["dice"].value < summary["dice"].high
    by_case = [found.hd95[0, 1].item(), *found.hd95[2:].mean(1).tolist()]
    assert summary["hd95"].value == pytest.approx(sum(by_case) / 8)
    assert summary["hd95/core"].value == pytest.approx(found.hd95[2:, 0].mean().item())
    assert summary["volume_error"].value == pytest.approx(0.375) and summary["volume_bias"].value == -0.125
    interval = bootstrap_interval(found.primary(), draws=300)
    assert (summary["dice"].low, summary["dice"].high) == interval


def test_a_figure_no_case_defines_is_nan():
    empty = torch.zeros(6, 8, dtype=torch.long)
    summary = score_case(empty, empty, LESION, (1.0, 1.0)).summary(draws=10)
    assert math.isnan(summary["hd95"].value) and math.isnan(summary["hd95"].low) and summary["dice"].value == 1
    assert "dice/lesion" not in summary


def test_tertiles_split_by_volume_and_leave_empty_cases_aside():
    volume = torch.tensor([5.0, 0.0, 1.0, 9.0, 2.0, 7.0, 3.0])
    assert volume_tertiles(volume).tolist() == [1, -1, 0, 2, 0, 2, 1]
    assert volume_tertiles(torch.zeros(2)).tolist() == [-1, -1]
    found = scores(7, classes=("lesion",))
    found.volume[:, 0] = volume
    groups, dice = found.by_volume(draws=50), found.primary()
    assert groups["small"].value == pytest.approx(dice[[2, 4]].mean().item())
    assert groups["large"].value == pytest.approx(dice[[3, 5]].mean().item())
    assert groups["empty"].value == dice[1].item() and list(groups) == ["small", "medium", "large", "empty"]


def test_scores_survive_a_file_with_the_order_of_their_classes(tmp_path):
    from safetensors.torch import load_file, save_file

    found = scores(4, classes=("z / odd name", "a"))
    found.hd95[2, 1] = torch.nan
    save_file(found.to_state(), tmp_path / "scores.safetensors")
    again = Scores.from_state(load_file(tmp_path / "scores.safetensors"))
    assert again.classes == found.classes and again.axes == 3
    assert all(
        torch.equal(getattr(again, name).nan_to_num(-1), getattr(found, name).nan_to_num(-1))
        for name in ("dice", "iou", "hd95", "nsd", "volume_error", "volume")
    )


def test_a_state_that_is_no_scores_is_refused():
    state = scores().to_state()
    del state["nsd/1/edema"]
    with pytest.raises(OptionError, match="nsd/1/edema"):
        Scores.from_state(state)
    with pytest.raises(OptionError, match="no scores"):
        Scores.from_state({})


def test_scores_are_joined_in_order_and_only_with_their_like():
    first, second = scores(2), scores(3, seed=1)
    whole = Scores.joined([first, second])
    assert len(whole) == 5 and torch.equal(whole.dice, torch.cat([first.dice, second.dice]))
    with pytest.raises(OptionError, match="lesion"):
        Scores.joined([first, scores(2, classes=("lesion",))])
    with pytest.raises(OptionError):
        Scores.joined([])
