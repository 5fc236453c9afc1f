"""The page of ``visionpeft demo``: served to this machine alone, it draws with the base and with adapters."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from denoisers import adapted
from PIL import Image
from pipelines import LENGTH, small_pipe

import visionpeft as vp
from visionpeft.backbones.pipelines import open_pipeline
from visionpeft.errors import OptionError, UserError
from visionpeft.predict import demo
from visionpeft.predict.comparison import Comparison, Wish
from visionpeft.predict.sampler import Sampler

CHROMIUM = shutil.which("chromium")
needs_gradio = pytest.mark.skipif(not importlib.util.find_spec("gradio"), reason="the extra `demo` is not installed")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and importlib.util.find_spec("playwright")), reason="there is no Chromium, or no playwright"
)


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> Sampler:
    folder = tmp_path_factory.mktemp("demo")
    small_pipe("StableDiffusionPipeline").save_pretrained(folder / "base")
    vp.save(adapted(open_pipeline(folder / "base").denoiser, "lora", ["attn.qkv", "conv.3x3"]), folder / "style")
    found = Sampler(folder / "base")
    found.add(folder / "style")
    return found


@pytest.fixture(scope="module")
def address(sampler: Sampler) -> Iterator[str]:
    import gradio

    yield demo.serve(sampler, wait=False)
    gradio.close_all()


def test_the_base_is_drawn_once_for_all_strengths(sampler: Sampler):
    comparison, steps = Comparison(sampler), []
    for strength in (1.0, 0.5, 0.0):
        steps.append(0)
        wish = Wish("abc", seed=3, steps=2)
        base, changed = comparison.draw(wish, {"style": strength}, lambda *_: steps.append(steps.pop() + 1))
        assert torch.equal(base, changed) == (strength == 0)
    assert steps == [4, 2, 2]


@needs_gradio
def test_the_page_answers_with_both_pictures(address: str, sampler: Sampler):
    from gradio_client import Client

    client = Client(address, verbose=False, analytics_enabled=False)
    found = client.predict("abc", 3, 1, 2, 5.0, "", 0.75, api_name="/draw")
    pictures = [np.asarray(Image.open(gallery[0]["image"]).convert("RGB")) for gallery in found]
    wanted = Comparison(sampler).draw(Wish("abc", 3, 1, 2, 5.0), {"style": 0.75})
    for picture, own in zip(pictures, wanted, strict=True):
        assert np.abs(picture.astype(int) - own[0].permute(1, 2, 0).numpy()).max() <= 1
    with pytest.raises(Exception, match="there is no prompt"):
        client.predict(" ", 3, 1, 2, 5.0, "", 0.75, api_name="/draw")


@needs_gradio
def test_it_is_served_to_this_machine_alone(address: str, sampler: Sampler):
    assert address.startswith("http://127.0.0.1:")
    port = int(address.rstrip("/").rpartition(":")[2])
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for other in others:
        with socket.socket() as door:
            assert door.connect_ex((other, port)) != 0 or other.startswith("127.")
    with pytest.raises(UserError, match=f"cannot be served at port {port}"):
        demo.serve(sampler, port, wait=False)


def test_without_gradio_it_says_what_to_install(sampler: Sampler, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(OptionError, match=r"pip install 'visionpeft\[demo\]'"):
        demo.serve(sampler, wait=False)


@pytest.mark.slow
@needs_gradio
@needs_browser
def test_in_a_browser_a_click_draws_and_a_long_prompt_is_warned_of(address: str, tmp_path: Path):
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.get_by_label("prompt", exact=True).fill("abc" * LENGTH)
        page.get_by_role("button", name="draw", exact=True).click()
        page.get_by_text("and are cut").first.wait_for(timeout=120_000)
        page.wait_for_function("document.querySelectorAll('.grid-wrap img, .preview img').length >= 2", timeout=120_000)
        page.screenshot(path=tmp_path / "page.png")
        browser.close()
    assert Image.open(tmp_path / "page.png").size == (1280, 900)
    assert {url for url in asked if not url.startswith((address, "data:", "blob:"))} == set()
