"""The judges of generated pictures, on drawings whose style, concept and origin are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from visionpeft.data.pictures.table import PictureTable
from visionpeft.errors import OptionError, UnknownNameError
from visionpeft.metrics.generation import (
    RECOLOURINGS,
    ConceptFinder,
    CopyDetector,
    StyleJudge,
    copied,
    diversity,
    efficientnet_features,
    own_concept,
    recolour,
)

SIZE = 48


def shapes(count: int, outlined: bool, seed: int) -> Tensor:
    """Discs and boxes: filled with shades of a colour on a bright ground, or outlined in two colours."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.linspace(-1, 1, SIZE)
    down, across = places[:, None], places[None]
    pictures = []
    for k in range(count):
        radius, x, y = 0.4 * torch.rand(3, generator=generator) + torch.tensor([0.3, -0.2, -0.2])
        inside = torch.hypot(across - x, down - y) if k % 2 else torch.maximum((across - x).abs(), (down - y).abs())
        ink, ground = torch.rand(3, generator=generator)[:, None, None] * 0.6, torch.tensor([0.95])
        shade = 0.6 + 0.4 * down
        cover = ((inside - radius).abs() < 0.08).float() if outlined else (inside < radius).float() * shade
        pictures.append(ground * (1 - cover) + ink * cover)
    return (torch.stack(pictures) * 255).round().to(torch.uint8)


@pytest.fixture(scope="module")
def judge() -> StyleJudge:
    return StyleJudge.fit(shapes(24, False, 0), shapes(24, True, 1))


def test_the_judge_tells_styles_apart_on_pictures_it_has_not_seen(judge: StyleJudge):
    found = judge.verdicts(shapes(24, False, 2), shapes(24, True, 3))
    assert found.target > 0.95 and found.source < 0.05
    assert found.accuracy == pytest.approx((found.target + 1 - found.source) / 2)


@pytest.mark.parametrize("way", ["duotone", "moments", "nearest"])
def test_colours_alone_do_not_convince_the_judge(judge: StyleJudge, way: str):
    """The ways that it has not learnt: source in the target's colours stays out, target in the source's stays in."""
    source, target = shapes(24, False, 2), shapes(24, True, 3)
    assert judge.in_style(recolour(source, target, way)).float().mean() < 0.15
    assert judge.in_style(recolour(target, source, way)).float().mean() > 0.85


def test_equal_seeds_make_equal_judges(judge: StyleJudge):
    again = StyleJudge.fit(shapes(24, False, 0), shapes(24, True, 1))
    assert (again.decide[-1].coef_ == judge.decide[-1].coef_).all()


@pytest.mark.parametrize("way", RECOLOURINGS)
def test_recolouring_takes_the_colours_and_keeps_the_drawing(way: str):
    picture = shapes(1, False, 4)
    dark, bright = (
        torch.tensor(colour, dtype=torch.uint8)[:, None, None] for colour in ((20, 20, 90), (250, 240, 200))
    )
    palette = torch.cat([dark.expand(3, SIZE, 16), bright.expand(3, SIZE, 32)], 2)[None]
    found = recolour(picture, palette, way)
    assert found.shape == picture.shape and found.dtype == torch.uint8
    assert (found[0, :, SIZE // 2, SIZE // 2] != found[0, :, 0, 0]).any(), "object and ground still differ"
    if way == "moments":
        assert (found.float().mean((0, 2, 3)) - palette.float().mean((0, 2, 3))).abs().max() < 25  # some are clipped
    else:
        assert ((found >= dark - 1) & (found <= bright + 1)).all()


def test_an_unknown_way_to_recolour_is_named():
    with pytest.raises(UnknownNameError, match=r"'histogramm'.* Did you mean 'histogram'"):
        recolour(shapes(1, False, 0), shapes(1, True, 0), "histogramm")


def test_the_own_concept_is_found_in_another_style():
    """The same 24 places and sizes, once filled and once outlined."""
    filled, outlined = shapes(24, False, 7), shapes(24, True, 7)
    names = [f"concept {k}" for k in range(24)]
    ranks = ConceptFinder(filled, names).ranks(outlined, names)
    assert (ranks == 0).float().mean() > 0.6
    assert (own_concept(outlined, names, filled, names, k=5) == (ranks < 5)).all()
    assert (ranks < 5).float().mean() > 0.9


def test_wrong_concepts_are_not_found():
    filled, outlined = shapes(24, False, 7), shapes(24, True, 7)
    names = [f"concept {k}" for k in range(24)]
    assert own_concept(outlined, names[12:] + names[:12], filled, names).float().mean() < 0.2
    same = outlined[:1].expand(24, -1, -1, -1).contiguous()
    assert own_concept(same, names, filled, names).float().mean() < 0.2, "a collapsed generator finds nothing"


def test_any_reference_of_a_concept_counts():
    pictures = shapes(16, False, 7)
    names = [f"concept {k % 8}" for k in range(16)]
    finder = ConceptFinder(pictures, names)
    assert finder.concepts == 8
    assert (finder.ranks(pictures, names) == 0).all()


def test_a_concept_without_reference_is_named():
    names = [f"concept {k}" for k in range(8)]
    finder = ConceptFinder(shapes(8, False, 0), names)
    with pytest.raises(OptionError, match="no reference picture shows 'unicorn'"):
        finder.ranks(shapes(8, True, 0), [*names[:7], "unicorn"])
    with pytest.raises(OptionError, match=r"images need a concept each, .* found 7 pictures and 8"):
        finder.ranks(shapes(7, True, 0), names)


def test_diversity_falls_when_pictures_repeat():
    features = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    repeated = features[:4].repeat(10, 1)
    assert diversity(features[:1].repeat(9, 1)) == pytest.approx(0, abs=1e-9)
    assert 0 < diversity(repeated) < diversity(features) < 1.1
    pairs = torch.pdist(torch.nn.functional.normalize(features.double(), dim=1)).square().mean() / 2
    assert diversity(features) == pytest.approx(pairs.item())
    with pytest.raises(OptionError, match=r"at least two pictures, found \(1, 16\)"):
        diversity(features[:1])


def test_copies_are_told_from_new_pictures():
    train, unseen, new = (shapes(24, True, seed) for seed in (11, 12, 13))
    detector = CopyDetector.fit(train, unseen)
    noise = 8 * torch.randn(train.shape, generator=torch.Generator().manual_seed(0))
    changed = {
        "none": train,
        "shift": train.roll(1, 3),
        "noise": (train + noise).clamp(0, 255).byte(),
        "colour": recolour(train, unseen, "moments"),
    }
    found = {name: detector.copies(pictures).float().mean().item() for name, pictures in changed.items()}
    assert min(found.values()) > 0.8, found
    assert detector.copies(new).float().mean() < 0.15
    assert copied(torch.cat([train[:12], new[:12]]), train, unseen) == pytest.approx(0.5, abs=0.1)
    with pytest.raises(OptionError, match="false_alarms"):
        CopyDetector.fit(train, unseen, false_alarms=0.9)


def test_features_are_the_same_every_time_and_in_any_batch():
    pictures = shapes(5, False, 0)
    space = efficientnet_features(size=64)
    found = space(pictures)
    assert found.shape == (5, 1280) and found.dtype == torch.float32 and not found.requires_grad
    assert (found == space(pictures)).all()
    torch.testing.assert_close(found[3:4], space(pictures[3:4]), rtol=1e-3, atol=1e-4)
    assert "EfficientNet-Lite0 (ImageNet)" in space.name and "64 px" in space.name


@pytest.mark.parametrize(
    "bad", [torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8).byte(), torch.zeros(0, 3, 8, 8).byte()]
)
def test_what_is_no_picture_is_refused(bad: Tensor):
    with pytest.raises(OptionError, match=r"uint8 pictures \(N, 3, H, W\)"):
        efficientnet_features()(bad)


def test_a_judge_needs_some_pictures_of_both_styles():
    with pytest.raises(OptionError, match="at least 8 pictures of the target, found 3"):
        StyleJudge.fit(shapes(8, False, 0), shapes(3, True, 0))
    with pytest.raises(OptionError, match="size is 16"):
        efficientnet_features(size=16)


@pytest.mark.slow
def test_the_figures_are_first_measured_on_real_pictures():
    """What ``python -m visionpeft.metrics.generation`` prints, of drawings instead of cards."""
    from visionpeft.metrics.generation.__main__ import figures

    names = tuple(f"concept {k}" for k in range(48))
    tables = table(shapes(48, False, 7), names), table(shapes(48, True, 7), names)
    said = "\n".join(figures(*tables, train=24, shots=8, passed=lambda images: images // 2))
    assert said.startswith("24 concepts to learn from, 24 others to measure on")
    for figure in (
        "style: found in",
        *(f"({way})" for way in RECOLOURINGS),
        "own concept",
        "KID",
        "FID",
        "copies of 8",
        "through the autoencoder (ceiling):",
    ):
        assert figure in said
    ceiling = float(said.split("of the source: ")[1].split(",")[0])
    assert ceiling > 0.5


def table(images: Tensor, names: tuple[str, ...]) -> PictureTable:
    """Every second picture is of the test part."""
    count = len(images)
    split = np.array(["train", "test"] * (count // 2))
    channels_last = images.permute(0, 2, 3, 1).numpy()
    return PictureTable(channels_last, (("",),) * count, names, names, np.zeros(count, np.int64), ("",), split, {})
