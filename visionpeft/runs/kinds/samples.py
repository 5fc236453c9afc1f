"""What drawn pictures score against real ones, by column title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

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
    style and the share that shows the concept (or the class) it should. Of a subject of fewer than :data:`FEWEST`
    pictures the likeness alone. None for a run whose data is not at hand, or that draws too few.
    """
    if not isinstance(data, PictureData):
        return {}
    if min(len(drawn), len(data.split.test)) < FEWEST:
        subject = len(drawn) and set(data.split.test) == set(data.split.train)
        return {f"likeness ({SPACE})": _likeness(drawn, pictures_at(data.table, data.split.test))} if subject else {}
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


def _likeness(drawn: Tensor, subject: Tensor) -> float:
    """Mean cosine over all pairs of features, as subjects are measured since DreamBooth (there by DINO and CLIP)."""
    of_drawn, of_subject = (F.normalize(efficientnet_features()(some), dim=1) for some in (drawn, subject))
    return (of_drawn @ of_subject.T).mean().item()


def _across_styles(data: PictureData, drawn: Tensor, positions: list[int]) -> dict[str, float]:
    """A denoiser that is told classes is asked for those alone; any picture of one will do."""
    assert data.source is not None, "asked for"
    kind = "class" if data.tells_classes else "concept"
    shown = _shown(data.table, kind)
    ranks = _finder(data, kind).ranks(drawn, [shown[n] for n in positions])
    style = _judge(data).in_style(drawn)
    return {
        "in the target's style": style.double().mean().item(),
        f"own {kind}: first": (ranks < 1).double().mean().item(),
        f"own {kind}: of five": (ranks < 5).double().mean().item(),
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


_finders: dict[tuple[str, str, tuple[str, ...]], ConceptFinder] = {}


def _finder(data: PictureData, kind: str) -> ConceptFinder:
    """The source's pictures of the concepts that are tested, each under its concept's name or its class's."""
    assert data.source is not None and data.source_card is not None, "asked for"
    source, tested = data.source, tuple(data.table.concepts[n] for n in data.split.test)
    key = data.source_card.model_dump_json(), kind, tested
    if key not in _finders:
        positions = [place for place, concept in enumerate(source.concepts) if concept in set(tested)]
        shown = _shown(source, kind)
        _finders[key] = ConceptFinder(pictures_at(source, positions), [shown[n] for n in positions])
    return _finders[key]


def _shown(table: PictureTable, kind: str) -> Sequence[str]:
    return table.concepts if kind == "concept" else [table.classes[label] for label in table.labels]
