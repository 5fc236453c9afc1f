"""What a report says of an autoencoder: pictures beside what came back of them."""

from __future__ import annotations

from html import escape

from visionpeft.report.content import Content
from visionpeft.report.markup import picture, section, tag


def sections(content: Content) -> str:
    """The section that only autoencoders have."""
    lead = f"Left a test picture, right what {content.result.main.label} makes of its latents; from best to worst."
    return section("Pictures and what comes back", _beside(content), lead=lead)


def _beside(content: Content) -> str:
    figures = []
    for example in content.pictures["examples"]:
        key = escape(example["key"])
        image = f'<img alt="{key}" title="{key}" src="{picture(content.folder / example["file"])}">'
        figures.append(tag("figure", image, tag("figcaption", tag("small", f"{example['psnr']:.1f} dB"))))
    return tag("div", *figures, class_="examples pairs")
