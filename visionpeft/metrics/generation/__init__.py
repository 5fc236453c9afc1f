"""How good generated pictures are: distances to real ones, style, content kept, diversity, memorising."""

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
