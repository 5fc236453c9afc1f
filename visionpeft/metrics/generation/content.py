"""Is it what was asked for? A picture's nearest real picture should show its own concept, also in another style.

Two styles differ in every feature's mean, so generated and real pictures are each centred on their own; then directions
in which the real pictures hardly differ are weighted up (whitening). What remains of style is little:
``python -m visionpeft.metrics.generation`` measures how often *real* pictures of the target style find their own
concept among the source's, which is the ceiling for generated ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from visionpeft.errors import OptionError
from visionpeft.metrics.generation.space import FeatureSpace, layout_features

FEWEST = 8
"""Pictures below which their mean says more of their content than of their style."""


class ConceptFinder:
    """Real pictures by concept, in which generated ones look for their own.

    Args:
        references: uint8 ``(R, 3, H, W)`` real pictures; several of one concept are welcome.
        concepts: what each of them shows.
        space: of the comparison; default :func:`layout_features`.

    Raises:
        OptionError: fewer than :data:`FEWEST` pictures, or another number of concepts.
    """

    def __init__(self, references: Tensor, concepts: Sequence[str], *, space: FeatureSpace | None = None) -> None:
        self.space = space or layout_features()
        names = sorted(set(concepts))
        self._place = {name: place for place, name in enumerate(names)}
        features = self._features(references, concepts, "references")
        self._axes, self._weights = _whitening(features)
        self._references = self._directions(features)
        self._shows = torch.tensor([self._place[concept] for concept in concepts])

    @property
    def concepts(self) -> int:
        """How many there are; guessing finds the own one in one of so many cases."""
        return len(self._place)

    def ranks(self, images: Tensor, concepts: Sequence[str]) -> Tensor:
        """``(N,)`` how many other concepts are as near as the own one or nearer; 0 means found.

        Args:
            images: uint8 ``(N, 3, H, W)``, all of one style: their common mean is taken for it.
            concepts: what each should show; each is a concept of the references.
        """
        if strangers := sorted(set(concepts) - set(self._place)):
            raise OptionError(f"no reference picture shows {strangers[0]!r}, so it cannot be found")
        likeness = self._directions(self._features(images, concepts, "images")) @ self._references.T
        best = likeness.new_full((len(likeness), self.concepts), -2.0)
        best = best.scatter_reduce(1, self._shows.expand_as(likeness), likeness, "amax")
        own = torch.tensor([self._place[concept] for concept in concepts])
        # Ties count against: of pictures that are all the same nothing is left once their mean is taken away.
        return (best >= best.gather(1, own[:, None])).sum(1) - 1

    def _features(self, images: Tensor, concepts: Sequence[str], what: str) -> Tensor:
        if not FEWEST <= len(images) == len(concepts):
            raise OptionError(
                f"{what} need a concept each, and to be at least {FEWEST}: found {len(images)} pictures and "
                f"{len(concepts)} concepts"
            )
        features = self.space(images).double().cpu()
        return features - features.mean(0)

    def _directions(self, centred: Tensor) -> Tensor:
        return F.normalize((centred @ self._axes) * self._weights, dim=1)


def own_concept(
    fake: Tensor,
    concepts: Sequence[str],
    references: Tensor,
    reference_concepts: Sequence[str],
    *,
    k: int = 1,
    space: FeatureSpace | None = None,
) -> Tensor:
    """``(N,)`` booleans: is the own concept among the ``k`` nearest? :class:`ConceptFinder` keeps its references.

    Args:
        fake: uint8 ``(N, 3, H, W)`` generated pictures of one style.
        concepts: what each should show.
        references, reference_concepts: real pictures and what they show.
        k: concepts that count as near.
        space: default :func:`layout_features`.
    """
    return ConceptFinder(references, reference_concepts, space=space).ranks(fake, concepts) < k


def _whitening(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Principal axes ``(D, K)`` and weights ``(K,)``; the mean variance is added to each, as small ones are noise."""
    _, spreads, axes = torch.linalg.svd(centred, full_matrices=False)
    variances = spreads.square() / len(centred)
    return axes.T, (variances + variances.mean()).rsqrt()
