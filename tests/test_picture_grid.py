"""Where a grid of pictures puts what, and what it refuses."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from visionpeft.errors import OptionError
from visionpeft.report.picture_grid import Column, as_png, picture_grid

COLOURS = torch.tensor([[220, 30, 30], [30, 160, 60], [40, 60, 210]], dtype=torch.uint8)


def flat(*which: int) -> Tensor:
    return COLOURS[list(which)][:, :, None, None].expand(-1, -1, 16, 16).contiguous()


def centres(grid: Image.Image, colour: Tensor) -> list[tuple[int, int]]:
    """Middles ``(x, y)`` of the connected areas of one colour."""
    from scipy.ndimage import center_of_mass, label

    areas, count = label((np.asarray(grid) == colour.numpy()).all(2))
    return sorted((round(x), round(y)) for y, x in center_of_mass(areas > 0, areas, range(1, count + 1)))


def test_every_picture_lies_in_its_row_and_column():
    grid = picture_grid(["a", "b"], [Column("one", flat(0, 1)), Column("two", flat(1, 2))], tile=48)
    ((left, top),), ((right, bottom),) = centres(grid, COLOURS[0]), centres(grid, COLOURS[2])
    assert centres(grid, COLOURS[1]) == [(left, bottom), (right, top)]
    assert left < right and top < bottom


def test_a_column_that_stands_apart_has_a_wider_gap():
    near = picture_grid(["a"], [Column("one", flat(0)), Column("two", flat(2))])
    far = picture_grid(["a"], [Column("one", flat(0)), Column("two", flat(2), apart=True)])
    gaps = [centres(grid, COLOURS[2])[0][0] - centres(grid, COLOURS[0])[0][0] for grid in (near, far)]
    assert gaps[0] < gaps[1]


def test_texts_make_room_and_never_touch_the_pictures():
    plain = picture_grid(["a"], [Column("one", flat(0))], tile=64)
    worded = picture_grid(
        ["a prompt of many words " * 6],
        [Column("a_method_with_a_very_long_name", flat(0), note="2.7 M weights, KID 3.1")],
        tile=64,
        title="Ink",
    )
    for grid in (plain, worded):
        assert (np.asarray(grid) == COLOURS[0].numpy()).all(2).sum() == 62 * 62, "all but the frame"
    assert worded.height > plain.height and worded.width > plain.width


def test_a_missing_picture_leaves_its_place():
    grid = picture_grid(["a", "b"], [Column("one", [None, flat(0)[0]])])
    assert len(centres(grid, COLOURS[0])) == 1


def test_the_file_is_a_png_of_the_same_pixels():
    grid = picture_grid(["é ✓"], [Column("one", flat(0))])
    again = Image.open(io.BytesIO(as_png(grid)))
    assert again.format == "PNG"
    assert (np.asarray(again) == np.asarray(grid)).all()


@pytest.mark.parametrize(
    ("prompts", "columns", "said"),
    [
        ([], [Column("one", flat(0))], "found 0 and 1"),
        (["a"], [], "found 1 and 0"),
        (["a", "b"], [Column("one", flat(0))], "'one' has 1 pictures for 2 prompts"),
        (["a"], [Column("one", flat(0).float())], "uint8 .* found torch.float32"),
        (["a"], [Column("one", flat(0)[:, :1])], r"found torch.uint8 \(1, 16, 16\)"),
    ],
)
def test_what_is_no_grid_is_refused(prompts, columns, said):
    with pytest.raises(OptionError, match=said):
        picture_grid(prompts, columns)
