"""Whole cases put together from windows, padding and mirror images."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.unet import UNet
from monai.networks.nets.unetr import UNETR
from torch import Tensor, nn

from visionpeft.errors import OptionError, StateError
from visionpeft.tasks.windows import divisor_of, predict_probabilities


def seeded(build) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().eval()


def pointwise(axes: int = 2) -> nn.Module:
    return seeded(lambda: (nn.Conv2d if axes == 2 else nn.Conv3d)(1, 3, 1))


def unet(axes: int = 2, levels: int = 3) -> nn.Module:
    return seeded(lambda: UNet(axes, 1, 2, [4] * levels, [2] * (levels - 1)))


def picture(*shape: int) -> Tensor:
    return torch.randn(1, 1, *shape, generator=torch.Generator().manual_seed(1))


class Watched(nn.Module):
    """Notes what goes through it."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = inner, []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        return self.inner(images)


@pytest.mark.parametrize("shape, window", [((37, 50), (16, 24)), ((9, 14, 11), (8, 8, 16)), ((5, 6), (32, 32))])
@pytest.mark.parametrize("flips", [False, True])
def test_windows_of_a_pointwise_network_are_the_whole_image(shape, window, flips):
    model, image = pointwise(len(shape)), picture(*shape)
    found = predict_probabilities(model, image, 3, window=window, flips=flips)
    torch.testing.assert_close(found, model(image).softmax(1), rtol=1e-4, atol=1e-6)
    assert found.dtype == torch.float32 and not found.requires_grad


def test_a_window_as_large_as_the_case_is_one_pass():
    model, image = Watched(unet()), picture(32, 24)
    found = predict_probabilities(model, image, 2, window=(32, 24))
    assert model.seen == [(1, 1, 32, 24)]
    torch.testing.assert_close(found, model(image).softmax(1))


def test_memory_is_bounded_by_the_window_and_the_batch():
    model = Watched(unet())
    predict_probabilities(model, picture(100, 70), 2, window=(32, 32), overlap=0.25, batch=3)
    assert {shape[2:] for shape in model.seen} == {(32, 32)} and max(shape[0] for shape in model.seen) == 3


def test_overlap_covers_a_case_more_often():
    passes = []
    for overlap in (0.0, 0.75):
        model = Watched(unet())
        predict_probabilities(model, picture(64, 64), 2, window=(32, 32), overlap=overlap, batch=1)
        passes.append(len(model.seen))
    assert passes == [4, 25]


def test_a_case_that_does_not_divide_is_padded_and_cropped_back():
    model, image = Watched(unet()), picture(13, 18)
    found = predict_probabilities(model, image, 2, divisor=4)
    assert model.seen == [(1, 1, 16, 20)] and found.shape == (1, 2, 13, 18)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 2))
    torch.testing.assert_close(found, model(padded).softmax(1)[..., 1:14, 1:19])


@pytest.mark.parametrize("axes", [2, 3])
def test_flips_average_over_every_mirror_image(axes):
    model, image = unet(axes), picture(*[8] * axes)
    mirrors = [
        dims for dims in ((), (2,), (3,), (4,), (2, 3), (2, 4), (3, 4), (2, 3, 4)) if max(dims, default=0) < axes + 2
    ]
    assert len(mirrors) == 2**axes
    with torch.no_grad():
        expected = torch.stack([model(image.flip(dims)).softmax(1).flip(dims) for dims in mirrors]).mean(0)
    torch.testing.assert_close(predict_probabilities(model, image, 2, flips=True), expected)
    assert not torch.allclose(predict_probabilities(model, image, 2), expected, atol=1e-4)


def test_a_coarser_map_is_brought_to_the_size_of_the_image():
    model = nn.Sequential(nn.AvgPool2d(4), pointwise())
    assert predict_probabilities(model, picture(16, 24), 3, divisor=8).shape == (1, 3, 16, 24)


def test_of_several_maps_the_first_is_predicted():
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = pointwise()

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            maps = self.net(images)
            return maps, -maps

    model, image = Several(), picture(8, 8)
    torch.testing.assert_close(predict_probabilities(model, image, 3), model(image)[0].softmax(1))


@pytest.mark.parametrize(
    "build, axes, expected",
    [
        (lambda: UNet(2, 1, 2, [4] * 5, [2] * 4), 2, 16),
        (lambda: UNet(3, 1, 2, [4] * 3, [2, 2]), 3, 4),
        (lambda: SegResNet(spatial_dims=3, init_filters=8, in_channels=1, out_channels=2), 3, 8),
        (lambda: nn.Conv2d(1, 2, 3, padding=1), 2, 1),
        (lambda: UNETR(1, 2, 32, 4, 12, 24, num_heads=2, spatial_dims=2), 2, 1),
    ],
    ids=["unet-2d", "unet-3d", "segresnet-3d", "conv", "unetr-of-one-size"],
)
def test_the_divisor_is_what_the_network_halves(build, axes, expected):
    model = seeded(build).train()
    assert divisor_of(model, picture(*[4] * axes)) == expected
    assert all(module.training for module in model.modules())


def test_a_network_of_one_size_predicts_in_windows_and_says_so_otherwise():
    model = seeded(lambda: UNETR(1, 2, 32, 4, 12, 24, num_heads=2, spatial_dims=2))
    assert predict_probabilities(model, picture(40, 20), 2, window=(32, 32)).shape == (1, 2, 40, 20)
    with pytest.raises(OptionError, match=r"refuses 1 channels of extents \[40, 20\].*window"):
        predict_probabilities(model, picture(40, 20), 2)


def test_a_window_the_network_cannot_halve_names_the_divisor():
    with pytest.raises(OptionError, match=r"multiples of 8, found \[30, 30\]"):
        predict_probabilities(unet(levels=4), picture(40, 40), 2, window=(30, 30))


@pytest.mark.parametrize("window", [(8,), (8, 8, 8), (8, 0)])
def test_a_window_of_other_axes_is_refused(window):
    with pytest.raises(OptionError, match="2 positive extents"):
        predict_probabilities(pointwise(), picture(8, 8), 3, window=window)


def test_other_channels_than_the_network_takes_are_refused():
    with pytest.raises(OptionError, match="2 channels"):
        predict_probabilities(unet(), torch.zeros(1, 2, 8, 8), 2)


def test_other_classes_than_the_network_makes_are_refused():
    with pytest.raises(StateError, match="another number of classes"):
        predict_probabilities(pointwise(), picture(8, 8), 2)


def test_nan_in_a_case_is_an_error():
    image = picture(8, 8)
    image[0, 0, 3, 3] = float("nan")
    with pytest.raises(StateError, match="NaN"):
        predict_probabilities(pointwise(), image, 3)
