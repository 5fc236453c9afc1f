"""Segmentation losses against MONAI's and torch's own, on one map and on several."""

from __future__ import annotations

import pytest
import torch
from monai.losses.dice import DiceCELoss, DiceLoss, GeneralizedDiceLoss
from monai.losses.focal_loss import FocalLoss
from monai.networks.nets.dynunet import DynUNet
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, one_hot

from visionpeft.errors import OptionError, StateError, UnknownNameError
from visionpeft.tasks.segment_losses import SegmentLoss, class_maps

CLASSES = 3
COMMON = {"to_onehot_y": True, "softmax": True, "batch": True}


def example(shape: tuple[int, ...] = (12, 16), batch: int = 2) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(batch, CLASSES, *shape, generator=draw)
    return maps, torch.randint(CLASSES, (batch, *shape), generator=draw)


@pytest.mark.parametrize("shape", [(12, 16), (8, 6, 4)])
def test_dice_ce_is_that_of_monai(shape):
    maps, masks = example(shape)
    expected = DiceCELoss(include_background=False, **COMMON)(maps, masks[:, None])
    torch.testing.assert_close(SegmentLoss("dice_ce", classes=CLASSES)(maps, masks), expected)


def test_the_other_losses_are_sums_of_those_of_monai():
    maps, masks = example()
    target = masks[:, None]
    dice, volume = DiceLoss(include_background=False, **COMMON)(maps, target), GeneralizedDiceLoss(**COMMON)
    expected = {
        "dice_focal": dice + FocalLoss(to_onehot_y=True, use_softmax=True)(maps, target),
        "generalized_dice": volume(maps, target),
        "generalized_dice_ce": volume(maps, target) + cross_entropy(maps, masks),
    }
    for name, value in expected.items():
        torch.testing.assert_close(SegmentLoss(name, classes=CLASSES)(maps, masks), value)


@pytest.mark.parametrize("name", ["dice_ce", "dice_focal", "generalized_dice", "generalized_dice_ce"])
def test_the_right_answer_costs_nothing_and_the_wrong_one_much(name):
    _, masks = example()
    right = 50.0 * one_hot(masks, CLASSES).movedim(-1, 1).float()
    loss = SegmentLoss(name, classes=CLASSES)
    assert loss(right, masks) < 1e-4 < 0.5 < loss(-right, masks)


def test_a_batch_without_foreground_still_has_gradients():
    maps, masks = example()
    maps.requires_grad_(True)
    SegmentLoss(classes=CLASSES)(maps, torch.zeros_like(masks)).backward()
    assert maps.grad is not None and maps.grad.isfinite().all() and maps.grad.any()


def test_class_weights_count_by_their_ratios():
    maps, masks = example()
    plain, even, uneven, scaled = (
        SegmentLoss(classes=CLASSES, class_weights=weights)(maps, masks)
        for weights in (None, (2.0, 2.0, 2.0), (1.0, 2.0, 5.0), (10.0, 20.0, 50.0))
    )
    torch.testing.assert_close(plain, even)
    torch.testing.assert_close(uneven, scaled)
    assert not torch.isclose(plain, uneven)
    dice = DiceLoss(include_background=False, weight=torch.tensor([4 / 7, 10 / 7]), **COMMON)(maps, masks[:, None])
    torch.testing.assert_close(uneven, dice + cross_entropy(maps, masks, torch.tensor([1.0, 2.0, 5.0])))


def test_deep_supervision_sums_maps_against_masks_of_their_size():
    maps, masks = example()
    coarse = interpolate(maps, (6, 8))
    small = interpolate(masks[:, None].float(), (6, 8), mode="nearest-exact")[:, 0].long()
    one = SegmentLoss(classes=CLASSES)
    expected = (one(maps, masks) + 0.5 * one(coarse, small)) / 1.5
    for output in ([maps, coarse], (maps, coarse)):
        torch.testing.assert_close(one(output, masks), expected)
    first = SegmentLoss(classes=CLASSES, deep_supervision=False)
    torch.testing.assert_close(first([maps, coarse], masks), one(maps, masks))


def test_a_stack_of_maps_is_a_list_of_them():
    maps, masks = example()
    loss = SegmentLoss(classes=CLASSES)
    torch.testing.assert_close(loss(torch.stack([maps, -maps], 1), masks), loss([maps, -maps], masks))


def test_dynunet_trains_with_its_own_supervision():
    net = DynUNet(
        3, 1, CLASSES, [3] * 4, [1, 2, 2, 2], [2] * 3, [4] * 4, deep_supervision=True, deep_supr_num=2
    ).train()
    _, masks = example((16, 16, 16))
    loss = SegmentLoss(classes=CLASSES)(net(torch.ones(2, 1, 16, 16, 16)), masks)
    loss.backward()
    heads = [
        p.grad for name, p in net.named_parameters() if name.startswith(("output_block", "deep_supervision_heads"))
    ]
    assert len(heads) == 6 and all(gradient is not None and gradient.any() for gradient in heads)


def test_an_output_with_other_classes_is_refused():
    maps, masks = example()
    with pytest.raises(StateError, match=r"\(2, 3, 12, 16\).*another number of classes"):
        SegmentLoss(classes=2)(maps, masks)
    with pytest.raises(StateError, match="class maps"):
        class_maps(torch.zeros(2, CLASSES), 2, CLASSES)


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"name": "dice_cee"}, UnknownNameError, "dice_ce"),
        ({"class_weights": (1.0, 2.0)}, OptionError, "2 values for 3 classes"),
        ({"class_weights": (1.0, -2.0, 1.0)}, OptionError, "at least 0"),
        ({"class_weights": (1.0, 0.0, 0.0)}, OptionError, "foreground"),
        ({"name": "generalized_dice", "class_weights": (1.0, 1.0, 1.0)}, OptionError, "volume"),
    ],
)
def test_senseless_losses_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        SegmentLoss(**{"classes": CLASSES, **options})
