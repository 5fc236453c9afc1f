"""Cases to look at: pictures with layers over them that can be switched, and a slider through the slices of a volume.

Switching needs no script: the choices are inputs that stand before the cases and style what follows them.
"""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
from PIL import Image

from visionpeft.report import layers
from visionpeft.report.content import Content
from visionpeft.report.markup import number, tag, void

CHOICES = {"prediction": "prediction", "errors": "errors", "plain": "neither"}
"""What may fill the picture, the first to begin with."""
MOST_CLASSES = 24
"""Named beside the pictures."""
SCRIPT = """
for (const slider of document.querySelectorAll(".case input")) {
  const figure = slider.closest(".case"), places = slider.dataset.places.split(" ");
  const turn = () => {
    figure.style.setProperty("--z", slider.value);
    figure.querySelector("output").textContent = places[slider.value];
  };
  slider.parentElement.hidden = false;
  slider.addEventListener("input", turn);
  turn();
}
"""


def viewer(content: Content) -> str:
    """The cases that the run kept, side by side."""
    cases = content.pictures["cases"]
    radios = [
        void("input", type="radio", name_="fill", id=f"fill-{key}", **({"checked": ""} if i == 0 else {}))
        + tag("label", words, for_=f"fill-{key}")
        for i, (key, words) in enumerate(CHOICES.items())
    ]
    outline = void("input", type="checkbox", id="show-truth", checked="") + tag("label", "truth", for_="show-truth")
    shown = tag("div", *(_case(content, case) for case in cases), class_="cases")
    script = tag("script", SCRIPT) if any(len(case["slices"]) > 1 for case in cases) else ""
    words = (tag("span", "outlined:", class_="what"), outline, tag("span", "filled:", class_="what"), *radios)
    return tag("div", *words, _keys(content), shown, class_="viewer") + script


def _case(content: Content, case: dict[str, Any]) -> str:
    """One case: its layers, what it is, and a slider where it has slices."""
    planes = {
        kind: [np.asarray(Image.open(content.folder / one[kind])) for one in case["slices"]]
        for kind in ("image", "truth", "prediction")
    }
    truths, guesses = planes["truth"], planes["prediction"]
    first = int(np.argmax([(truth > 0).sum() for truth in truths]))
    drawn = {
        "image": layers.image_layer(planes["image"]),
        "prediction": layers.fill_layer(guesses),
        "errors": layers.error_layer(truths, guesses),
        "truth": layers.outline_layer(truths),
    }
    name = escape(case["key"])
    alts = {kind: f"{case['role']} case {name}" if kind == "image" else "" for kind in drawn}
    pictures = [f'<img class="{kind}" alt="{alts[kind]}" src="{address}">' for kind, address in drawn.items()]
    height, width = truths[0].shape
    ratio = f"aspect-ratio: {width} / {height * case.get('stretch', 1):.4g}"
    stack = tag("div", *pictures, class_="stack", style=ratio)
    style = f"--n: {len(truths)}; --z: {first}"
    return tag("figure", stack, _slider(case, first), _caption(case, name), class_="case", style=style)


def _slider(case: dict[str, Any], first: int) -> str:
    """Hidden until the script finds it; without scripts the slice with most of the truth is shown."""
    count = len(case["slices"])
    if count < 2:
        return ""
    total = case.get("depth", count)
    places = " ".join(f"{one.get('place', i) + 1}/{total}" for i, one in enumerate(case["slices"]))
    range_ = {"type": "range", "min": "0", "max": str(count - 1), "value": str(first)}
    slider = void("input", **range_, data_places=places, aria_label=f"slice of the {case['role']} case")
    return tag("label", "slice ", slider, tag("output", ""), class_="slider", hidden="")


def _caption(case: dict[str, Any], name: str) -> str:
    volume = f", {number(case['volume'])} {case['unit']}" if "volume" in case else ""
    words = tag("small", f"{name}{escape(volume)}")
    return tag("figcaption", tag("strong", escape(case["role"])), f" Dice {case['dice']:.3f} ", words)


def _keys(content: Content) -> str:
    """What the colours mean: classes, and under ``errors`` the kinds of error."""
    names = content.classes[1:]
    classes = [_key(name, layers.CLASS_COLOURS[i % len(layers.CLASS_COLOURS)]) for i, name in enumerate(names)]
    more = len(classes) - MOST_CLASSES
    classes = [*classes[:MOST_CLASSES], tag("span", f"and {more} more")] if more > 0 else classes
    several = len(names) > 1
    errors = [_key(name, rgb) for name, rgb in layers.ERRORS.items() if several or name != "another class"]
    return tag("div", *classes, class_="keys") + tag("div", *errors, class_="keys error-keys")


def _key(name: str, rgb: tuple[int, int, int]) -> str:
    swatch = tag("i", style=f"background: rgb({', '.join(map(str, rgb))})")
    return tag("span", swatch, escape(name), class_="key")
