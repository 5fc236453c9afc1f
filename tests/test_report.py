"""The report: one file, nothing outside it, and the figures of the run in it."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tiny import finished, recipe

from visionpeft.errors import UserError
from visionpeft.pipeline import run
from visionpeft.report import write_report

VOID = {"meta", "img", "input", "link", "br", "line", "circle", "path", "use", "image", "rect"}


class Page(HTMLParser):
    """Collects headings, addresses and text, and checks that tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack, self.addresses, self.headings, self.words = [], [], [], []
        self.feed(html)
        assert not self.stack, f"never closed: {self.stack}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "action")]
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.stack and self.stack.pop() == tag, f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] == "h2":
            self.headings.append(data)
        self.words.append(data)


@pytest.fixture(scope="module")
def html() -> str:
    return finished().report.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_complete(html: str):
    assert Page(html).headings == [
        *("Results", "Learning curves", "Figure of merit and parameters", "Confusion matrix", "Surest and right"),
        *("Surest and wrong", "Learning rates", "Plan", "Recipe", "Environment"),
    ]


def test_nothing_lies_outside_the_page(html: str):
    outside = [a for a in Page(html).addresses if not a.startswith(("data:image/png;base64,", "#"))]
    assert not outside
    assert not re.findall(r"url\((?!['\"]?#)|@import|<script", html)


def test_the_figures_are_those_of_the_run(html: str):
    text = " ".join(Page(html).words)
    for row in finished().rows:
        assert row.label in text, "labels are escaped, so <r2> reads back"
        assert f"{100 * row.value:.1f}\u202f%" in text
    assert f"{finished().main.trainable:,} of {finished().main.total:,}" in text
    assert finished().digest[:16] in text


def test_the_plan_names_every_adapted_weight_with_its_reason(html: str):
    text = " ".join(Page(html).words)
    assert "blocks.0.attn.qkv" in text and "blocks.0.mlp.fc1" in text and "72×24" in text


def test_light_and_dark_use_the_pages_colours(html: str):
    assert "prefers-color-scheme: dark" in html and "currentColor" in html
    assert "#010203" not in html, "the ink of the plots is replaced by the page's"


def test_it_is_drawn_again_from_the_folder_alone(tmp_path: Path):
    copy = tmp_path / "moved"
    shutil.copytree(finished().folder, copy)
    (copy / "report.html").unlink()
    assert write_report(copy).read_text() == finished().report.read_text()


def test_a_damaged_folder_is_refused(tmp_path: Path):
    copy = tmp_path / "damaged"
    shutil.copytree(finished().folder, copy)
    predictions = next(copy.rglob("lora/**/predictions.safetensors"))
    predictions.write_bytes(predictions.read_bytes()[:200])
    with pytest.raises(UserError, match=r"predictions.safetensors is truncated"):
        write_report(copy)


def test_a_sweep_draws_its_elbow(tmp_path: Path):
    made = run(
        recipe(sweep={"method.rank": [1, 3]}, trainer={"max_steps": 4}, seeds=[0, 1]),
        output=tmp_path / "sweep",
        progress=False,
    )
    page = Page(made.report.read_text())
    assert "Sweep" in page.headings
    assert [row.swept for row in made.rows] == [1, 3]
    assert any("method.rank" in word for word in page.words)
    best = max(made.rows, key=lambda row: row.val or 0)
    assert made.main.label == best.label, "the main entry is chosen on validation images"
