"""Is a picture drawn in the target's style? A judge that is tested on real pictures first, and that colour alone
does not convince.

It sees pictures without colour and with stretched tone, by the mean and spread of early features: strokes and shading,
not motifs. It learns from both styles also recoloured in each other's palettes, so that tone, too, says little; and
from softened and noisy copies of both, as generated pictures are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from visionpeft.errors import OptionError
from visionpeft.metrics.generation.colour import recolour
from visionpeft.metrics.generation.space import FeatureSpace, check_pictures, stroke_features

LEARNT_RECOLOURINGS = ("histogram", "gradient")
"""The others of :data:`visionpeft.metrics.generation.colour.RECOLOURINGS` are left to test the judge with."""
MOST = 300  # pictures of a style that the judge learns from
FEWEST = 8
_SOFT, _NOISE = 0.8, 4.0  # standard deviations: pixels of 64 a side, and grey values of 255


@dataclass(frozen=True)
class Verdicts:
    """How a judge does on real pictures it has not seen: the share of each style that it finds in the target's."""

    target: float
    source: float

    @property
    def accuracy(self) -> float:
        """Mean of both styles' shares that are right."""
        return (self.target + 1 - self.source) / 2


@dataclass(frozen=True, eq=False)
class StyleJudge:
    """Tells the target's style from the source's.

    Attributes:
        space: what it sees of pictures.
        decide: a fitted scikit-learn classifier of the features; 1 stands for the target's style.
    """

    space: FeatureSpace
    decide: Any

    @classmethod
    def fit(cls, source: Tensor, target: Tensor, seed: int = 0, *, space: FeatureSpace | None = None) -> StyleJudge:
        """Learn both styles from real pictures: half a minute of CPU time for 300 of each.

        Args:
            source: uint8 ``(N, 3, H, W)`` in the source's style.
            target: uint8 ``(M, 3, H, W)`` in the target's. Leave concepts out for :meth:`verdicts`. Of more than
                :data:`MOST` pictures as many are drawn.
            seed: of the draw, the palettes and the noise.
            space: default :func:`stroke_features`.

        Raises:
            OptionError: fewer than eight pictures of a style, or no uint8 pictures.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        space = space or stroke_features()
        source, target = (_some(images, what, seed) for images, what in ((source, "source"), (target, "target")))
        seen = [
            torch.cat([space(some) for some in _variants(images, palettes, seed)])
            for images, palettes in ((source, target), (target, source))
        ]
        labels = torch.cat([torch.full((len(features),), place) for place, features in enumerate(seen)])
        decide = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000, class_weight="balanced"))
        return cls(space, decide.fit(torch.cat(seen).cpu().numpy(), labels.numpy()))

    def in_style(self, images: Tensor) -> Tensor:
        """``(N,)`` booleans of uint8 pictures ``(N, 3, H, W)``: rather the target's style than the source's?"""
        return torch.from_numpy(self.decide.predict(self.space(images).cpu().numpy()) == 1)

    def verdicts(self, source: Tensor, target: Tensor) -> Verdicts:
        """What it says of real pictures of both styles, uint8 ``(·, 3, H, W)``; give concepts it has not learnt."""
        target_share, source_share = (self.in_style(images).double().mean().item() for images in (target, source))
        return Verdicts(target_share, source_share)


def _some(images: Tensor, what: str, seed: int) -> Tensor:
    check_pictures(images, what)
    if len(images) < FEWEST:
        raise OptionError(f"a judge of style needs at least {FEWEST} pictures of the {what}, found {len(images)}")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images.cpu()[order[:MOST].sort().values]


def _variants(images: Tensor, palettes: Tensor, seed: int) -> list[Tensor]:
    """As they are, in the other style's colours, softened, and noisy."""
    from torchvision.transforms.v2.functional import gaussian_blur

    recoloured = [recolour(images, palettes, way, seed) for way in LEARNT_RECOLOURINGS]
    soft = gaussian_blur(images, [7, 7], [_SOFT * images.shape[-1] / 64])
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)) * _NOISE
    noisy = (images + noise).round().clamp(0, 255).to(torch.uint8)
    return [images, *recoloured, soft, noisy]
