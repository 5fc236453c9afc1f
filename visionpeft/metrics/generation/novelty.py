"""Do generated pictures differ from each other, and from those trained on?"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from visionpeft.errors import OptionError
from visionpeft.metrics.generation.space import FeatureSpace, Thumbnails

FALSE_ALARMS = 0.02
"""Share of real pictures, none of them trained on, that may count as copies: some pictures simply look alike."""


def diversity(features: Tensor) -> float:
    """Mean of ``1 − cosine`` over all pairs of pictures: 0 where all are one, whatever their number.

    Compare with that of as many real pictures of the same concepts; a collapsed generator stays far below.

    Args:
        features: ``(N, D)`` of any feature space, N ≥ 2.

    Raises:
        OptionError: fewer than two pictures, or features that are not finite.
    """
    if features.ndim != 2 or len(features) < 2 or not features.isfinite().all():
        raise OptionError(f"diversity needs finite features (N, D) of at least two pictures, found {_shape(features)}")
    directions = F.normalize(features.double(), dim=1)
    count = len(directions)
    return 1 - (directions.sum(0).square().sum().item() - count) / (count * (count - 1))


@dataclass(frozen=True, eq=False)
class CopyDetector:
    """Finds pictures nearer to a training picture than real pictures that were never trained on are.

    Measured by :class:`Thumbnails` it finds softened, noisy, recoloured and slightly shifted copies; none that is moved
    by more than a pixel of 64, turned or mirrored.

    Attributes:
        space: of the comparison.
        train: ``(T, D)`` unit vectors of the training pictures.
        reach: ``1 − cosine`` up to which a picture counts as a copy.
    """

    space: FeatureSpace
    train: Tensor
    reach: float

    @classmethod
    def fit(
        cls,
        train: Tensor,
        unseen: Tensor,
        *,
        false_alarms: float = FALSE_ALARMS,
        space: FeatureSpace | None = None,
    ) -> CopyDetector:
        """Choose the reach so that a share ``false_alarms`` of ``unseen`` counts as copies.

        Args:
            train: uint8 ``(T, 3, H, W)`` pictures trained on.
            unseen: uint8 ``(U, 3, H, W)`` real pictures of the same style, none of them trained on.
            false_alarms: 0 … 0.5.
            space: default :class:`Thumbnails`.
        """
        if not 0 <= false_alarms <= 0.5:
            raise OptionError(f"false_alarms must lie in 0 … 0.5, found {false_alarms}")
        space = space or Thumbnails()
        known = F.normalize(space(train).double().cpu(), dim=1)
        return cls(space, known, _nearest(space, unseen, known).quantile(false_alarms).item())

    def copies(self, images: Tensor) -> Tensor:
        """``(N,)`` booleans of uint8 pictures ``(N, 3, H, W)``."""
        return _nearest(self.space, images, self.train) < self.reach


def copied(fake: Tensor, train: Tensor, unseen: Tensor) -> float:
    """Share of ``fake`` that copies a picture of ``train``; of memorising speaks what exceeds :data:`FALSE_ALARMS`.

    Generate pictures of concepts that were not trained on: those trained on *should* resemble their training pictures.

    Args:
        fake, train, unseen: uint8 ``(·, 3, H, W)`` generated pictures, those trained on, and other real ones.
    """
    return CopyDetector.fit(train, unseen).copies(fake).double().mean().item()


def _nearest(space: FeatureSpace, images: Tensor, known: Tensor) -> Tensor:
    return 1 - (F.normalize(space(images).double().cpu(), dim=1) @ known.T).amax(1)


def _shape(features: Tensor) -> tuple[int, ...]:
    return tuple(features.shape)
