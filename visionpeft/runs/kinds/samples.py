"""What drawn pictures score against real ones, by column title."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from visionpeft.data.pictures.module import PictureData
from visionpeft.data.pictures.table import PictureTable
from visionpeft.metrics.generation import ConceptFinder, StyleJudge, copied, diversity, efficientnet_features, fid, kid

FEWEST = 8
"""Pictures that a distance between sets needs to mean anything."""
SPACE = "EfficientNet-Lite0"
"""Whose features distances are measured in; the full name is that of the space."""


def measures_of(data: Any, drawn: Tensor, positions: Tensor) -> dict[str, float]:
    """Figures of ``drawn (m, 3, S, S)`` uint8 with the captions at ``positions (m,)`` of the data's table.

    Distances to the real test pictures, and diversity; with a ``source`` style also the share that is in the target's
    style and the share that shows the concept it should. None for a run whose data is not at hand, or that draws fewer
    than :data:`FEWEST` pictures.
    """
    if not isinstance(data, PictureData) or min(len(drawn), len(data.split.test)) < FEWEST:
        return {}
    space, real = efficientnet_features(), pictures_at(data.table, data.split.test)
    of_real, of_drawn = space(real), space(drawn)
    figures = {
        f"KID ×1000 ({SPACE})": kid(of_real, of_drawn).value,
        f"FID ({SPACE})": fid(of_real, of_drawn),
        "diversity": diversity(of_drawn),
    }
    if not set(data.split.train) & set(data.split.test):
        figures["copied"] = copied(drawn, pictures_at(data.table, data.split.train), real)
    if data.source is not None:
        figures |= _across_styles(data, drawn, positions.tolist())
    return figures


def pictures_at(table: PictureTable, positions: Sequence[int]) -> Tensor:
    """Of a table, uint8 ``(n, 3, S, S)``."""
    return torch.from_numpy(table.images[list(positions)].copy()).permute(0, 3, 1, 2)


def _across_styles(data: PictureData, drawn: Tensor, positions: list[int]) -> dict[str, float]:
    assert data.source is not None, "asked for"
    shown = [data.table.concepts[n] for n in positions]
    ranks = _finder(data.source, tuple(data.table.concepts[n] for n in data.split.test)).ranks(drawn, shown)
    style = _judge(data).in_style(drawn)
    return {
        "in the target's style": style.double().mean().item(),
        "own concept: first": (ranks < 1).double().mean().item(),
        "own concept: of five": (ranks < 5).double().mean().item(),
    }


_judges: dict[tuple[str, str], StyleJudge] = {}


def _judge(data: PictureData) -> StyleJudge:
    """Learns from the train parts of both styles, whose concepts are the same; once, whatever the seed of a run."""
    assert data.source is not None and data.source_card is not None, "asked for"
    key = data.source_card.model_dump_json(), data.card.model_dump_json()
    if key not in _judges:
        source, target = (pictures_at(t, t.indices("train").tolist()) for t in (data.source, data.table))
        _judges[key] = StyleJudge.fit(source, target)
    return _judges[key]


@lru_cache(maxsize=4)
def _finder(source: PictureTable, concepts: tuple[str, ...]) -> ConceptFinder:
    """The source's pictures of the concepts that are tested."""
    positions = [place for place, concept in enumerate(source.concepts) if concept in set(concepts)]
    return ConceptFinder(pictures_at(source, positions), [source.concepts[place] for place in positions])
