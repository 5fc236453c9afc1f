"""``visionpeft show``: a line a weight, the plan of a real call, and what is refused, dead or not asked for."""

from __future__ import annotations

import re

import pytest
from networks import on_meta
from test_cli import call

from visionpeft.surgery.targets import weights_of


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Rows by path, and the last line, of ``visionpeft show --backbone …``."""

    def run(*words: str) -> tuple[dict[str, list[str]], str]:
        code, out, err = call(capsys, monkeypatch, "show", "--backbone", *words)
        assert code == 0, err
        cells = [[cell.strip() for cell in line.split("│")] for line in out.splitlines() if "│" in line]
        return {row[0]: row[1:] for row in cells}, out.strip().splitlines()[-1]

    return run


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("timm/swin_tiny_patch4_window7_224", "cp_lora"),
        ("timm/efficientnet_b0", "salt"),
        ("monai/SegResNet", "flora"),
        pytest.param("open_clip/RN50", "lora", marks=pytest.mark.slow),
        pytest.param("diffusers/UNet2DConditionModel", "lora", marks=pytest.mark.slow),
    ],
)
def test_every_weight_has_a_line_with_its_plan(show, name: str, method: str):
    rows, summary = show(name, "--method", method)
    assert [path.partition("[")[0] for path in rows if "[" not in path or path.endswith("[q]")] == [
        weight.path for weight in weights_of(on_meta(name).model)
    ]
    assert {plan for *_, plan, _ in rows.values()} <= {"factored", "dense", "fused", "direct"}
    assert all(int(parameters.replace(",", "")) > 0 and why for _, _, parameters, _, why in rows.values())
    assert "100.0% of the" in summary and "adapt and merge exactly" in summary


def test_the_reason_is_how_much_the_other_paths_cost(show):
    rows, _ = show("timm/resnet18", "--method", "lora")
    assert all(re.fullmatch(r"(\w+ ×\d+\.\d\d(, )?)+", why) for *_, why in rows.values())


def test_weights_that_are_not_asked_for_or_refused_are_shown_too(show):
    rows, summary = show("timm/resnet18", "--method", "lora_c", "-t", "conv")
    assert rows["fc"] == ["linear", "1000×512", "–", "frozen", "not among the targets"]
    assert rows["layer1.0.conv1"][3] in ("factored", "dense", "fused")
    rows, _ = show("timm/resnet18", "--method", "lora_c")
    assert rows["fc"][3] == "refused" and "layout: separable takes any" in rows["fc"][4]
    assert "100.0%" not in summary


def test_a_dead_weight_is_shown_as_such(show):
    """MONAI's autoencoder branch builds a layer that it uses only when it estimates the variance."""
    rows, _ = show("monai/SegResNetVAE", "--image-size", "32", "--backbone-option", "input_image_size=[32, 32, 32]")
    dead = [path for path, (*_, why) in rows.items() if why.startswith("dead")]
    assert dead == ["vae_fc2"]
