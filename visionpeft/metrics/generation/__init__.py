"""How good generated pictures are: distances to real ones, style, content kept, diversity, memorising.

What the figures say of *real* pictures comes first; ``python -m visionpeft.metrics.generation SOURCE TARGET`` measures
it on concepts that nothing was learnt from. ``emoji-google emoji-ink``, 300 concepts to learn from, 266 to measure on:

- style: .966 of the ink pictures are found in style, .023 of the others. In each other's colours, by ways that the
  judge has not learnt (duotone, moments, nearest), .95 – .97 and .02 – .03; by those it has (gradient, histogram),
  .94 – .96 and .07 – .13: these reduce many a picture to ink and paper, which is half of the style.
- own concept, the ceiling of generated pictures: .929 at once, .985 among the nearest five (guessing: .004, .019).
- FID of 133 real ink pictures to the other 133 is 257, of google to ink 508: with so few it is read against its floor.
- copies of 34 training pictures: all are found when softened or in other colours, .94 when moved by a pixel; .015 of
  new pictures are taken for copies.
"""

from __future__ import annotations

from visionpeft.metrics.generation.colour import RECOLOURINGS, recolour
from visionpeft.metrics.generation.content import ConceptFinder, own_concept
from visionpeft.metrics.generation.distances import fid, fid_floor, kid
from visionpeft.metrics.generation.novelty import CopyDetector, copied, diversity
from visionpeft.metrics.generation.space import (
    FeatureSpace,
    Thumbnails,
    efficientnet_features,
    layout_features,
    stroke_features,
)
from visionpeft.metrics.generation.style import StyleJudge, Verdicts

__all__ = [
    "RECOLOURINGS",
    "ConceptFinder",
    "CopyDetector",
    "FeatureSpace",
    "StyleJudge",
    "Thumbnails",
    "Verdicts",
    "copied",
    "diversity",
    "efficientnet_features",
    "fid",
    "fid_floor",
    "kid",
    "layout_features",
    "own_concept",
    "recolour",
    "stroke_features",
]
