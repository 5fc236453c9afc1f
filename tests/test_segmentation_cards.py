"""The segmentation cards that ship: what the packages hold is what the cards say (downloads, once a session)."""

from __future__ import annotations

import numpy as np
import pytest

from visionpeft.data.cards import cards, load_card
from visionpeft.data.segmentation.cards import SegmentationCard
from visionpeft.data.segmentation.lesions import lesions
from visionpeft.data.segmentation.module import SegmentationData
from visionpeft.data.segmentation.open import open_segmentation
from visionpeft.data.tables import PARTS

OWN = {"pairs", "decathlon"}
SHIPPED = [name for name in cards() if name not in OWN and isinstance(load_card(name), SegmentationCard)]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", SHIPPED)
def test_a_card_opens(name: str) -> None:
    """The split is the pinned one, every part has cases, and a case is what the card says."""
    card, table = load_card(name), open_segmentation(name)
    for part in PARTS:
        case = table.case(int(table.indices(part)[0]))
        assert case.image.shape == (card.channels, *case.mask.shape)
        assert case.mask.ndim == card.axes
        assert np.isfinite(case.image).all()
        assert 0 < case.mask.max() < len(card.classes)


@pytest.mark.parametrize("name", SHIPPED)
def test_parts_share_no_group(name: str) -> None:
    table = open_segmentation(name)
    parts = [{table.groups[i] for i in table.indices(part)} for part in PARTS]
    assert len(set.union(*parts)) == sum(map(len, parts))


def test_white_matter_is_lighter_than_grey() -> None:
    case = open_segmentation("tissue-2d").case(0)
    grey, white = (case.image[0][case.mask == label].mean() for label in (1, 2))
    assert white > grey + 0.5


def test_lesions_of_source_and_target_differ_in_appearance() -> None:
    """Source lesions are light all over; in the targets about half of each lesion is dark."""
    light = {}
    for name in ("lesions-source", "lesions-target-rim", "lesions-target-mix"):
        table = open_segmentation(name)
        large = [case for case in map(table.case, range(20)) if case.mask.sum() > 40]
        tissue = [np.median(case.image[0][(case.mask == 0) & (case.image[0] != 0)]) for case in large]
        light[name] = np.mean([(c.image[0][c.mask == 1] > t).mean() for c, t in zip(large, tissue, strict=True)])
    assert light["lesions-source"] > 0.9
    assert 0.3 < light["lesions-target-rim"] < 0.75
    assert 0.3 < light["lesions-target-mix"] < 0.75


def test_lesions_keep_to_their_slabs() -> None:
    """Source, tuning and target slabs are at least 8 mm apart, and the seeds of all parts differ."""
    source, target = (load_card(f"lesions-{name}").reader.patients for name in ("source", "target-rim"))
    every = {("source", part): p for part, p in source.items()} | {("target", part): p for part, p in target.items()}
    ranges = [(place, slab["axial"]) for place, patients in every.items() for slab in patients.slabs]
    for one, (low, high) in ranges:
        for other, (first, last) in ranges:
            if one != other:
                assert first - high >= 8 or low - last >= 8, (one, other)
    assert len({patients.seed for patients in every.values()}) == len(every)


def test_lesion_volumes_are_those_of_the_key() -> None:
    """Without warping, the area of a slice through the centre is that of a body of the stated volume."""
    card = load_card("lesions-source")
    still = card.reader.scanner.model_copy(update={"bend": 0.0, "rotate": 0.0, "scale": 0.0})
    card = card.model_copy(update={"reader": card.reader.model_copy(update={"scanner": still})})
    from visionpeft.data.fetch import stage

    entries = lesions(card, stage(card))[:90:7]
    stated = np.array([float(entry.key.split()[-2]) for entry in entries])
    areas = np.array([entry.load().mask.sum() * 4.0 for entry in entries])  # mm²
    balls = np.pi * (3 * stated * 1000 / (4 * np.pi)) ** (2 / 3)
    assert (np.abs(np.log(areas / balls)) < 0.8).all()
    assert np.corrcoef(np.log(areas), np.log(stated))[0, 1] > 0.9


def test_three_folds_of_the_target_are_its_three_slabs() -> None:
    seen = []
    for fold in range(3):
        data = SegmentationData("lesions-target-rim", folds=3, fold=fold, patch_size=96)
        data.setup()
        assert [len(getattr(data.split, part)) for part in PARTS] == [20, 12, 10]
        assert all(data.table.split[i] == "val" for i in data.split.val)
        assert len({data.table.groups[i] for i in data.split.test}) == 1
        seen += data.split.test
    assert len(set(seen)) == 30
