"""What a report says of a segmentation: overlays of the best, the median and the worst case."""

from __future__ import annotations

from html import escape

from visionpeft.report.content import Content
from visionpeft.report.markup import picture, section, tag


def sections(content: Content) -> str:
    """The sections that only segmentation has."""
    return section("Cases", *(_case(content, case) for case in content.pictures["cases"]))


def _case(content: Content, case: dict) -> str:
    shown = case["slices"][len(case["slices"]) // 2]
    pictures = [f'<img alt="{kind}" src="{picture(content.folder / shown[kind])}">' for kind in shown]
    words = f"{case['role']}: {case['key']}, Dice {case['dice']:.3f}"
    return tag("figure", *pictures, tag("figcaption", escape(words)))
