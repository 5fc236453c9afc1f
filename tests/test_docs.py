"""What the documents say is true: tables equal the code, examples run, links and commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from visionpeft.data.cards import load_card
from visionpeft.data.prompts import prompts_of
from visionpeft.recipe import check_methods, entries, load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")


def example(page: str, name: str, language: str = "python") -> str:
    """The block that follows ``<!-- example: NAME -->``."""
    block = rf"<!-- example: {re.escape(name)} -->\n```{language}\n(.*?)```"
    found = re.findall(block, (ROOT / page).read_text(), re.S)
    assert len(found) == 1, f"{page}: {len(found)} examples named {name!r}"
    return found[0]


def python(code: str, folder: Path) -> str:
    """Run code in a fresh process, so that what it registers or loads stays there."""
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_tables_of_the_readme_equal_the_code():
    command = [sys.executable, "-P", str(ROOT / "tests" / "generate_docs.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"README.md is out of date, run `make docs`\n{done.stderr}"


def test_the_api_example_runs(tmp_path: Path):
    code = example("README.md", "api")
    assert "pretrained=True" in code
    python(code.replace("pretrained=True", "pretrained=False"), tmp_path)
    assert {path.name for path in (tmp_path / "adapter").iterdir()} >= {"adapter.json"}


def test_the_diffusion_example_is_a_recipe(tmp_path: Path):
    path = tmp_path / "diffuse.yaml"
    path.write_text(example("README.md", "diffuse", "yaml"))
    recipe = load_recipe(path)
    assert [entry.label for entry in entries(recipe)] == ["lora", "before"]
    check_methods(recipe)


def test_the_few_shot_example_is_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name, block in (("birds.yaml", "fewshot"), ("prompts.yaml", "prompts.yaml")):
        Path(name).write_text(example("README.md", block, "yaml"))
    listed = entries(load_recipe("birds.yaml"))
    assert [entry.label for entry in listed if entry.main] == ["block_lora, shots 1", "block_lora, shots 4"]
    for entry in listed:
        check_methods(entry.recipe)
    texts = prompts_of(load_card("folder"), ["blue_tit", "robin"], "prompts.yaml").texts  # pyright: ignore
    assert [text[0] for text in texts] == ["a photo of a blue tit, a bird.", "a photo of a European robin, a bird."]


# The laws that CONTRIBUTING.md promises for a method that is nothing but its one file.
LAWS = """
import copy, torch, visionpeft as vp
from torch import nn

assert "loha" in vp.methods()
for layer, x in [
    (nn.Linear(6, 5), torch.randn(3, 6)),
    (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", groups=2), torch.randn(2, 4, 7, 7)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2), torch.randn(2, 4, 5, 5)),
]:
    layer, x = layer.double(), x.double()
    base = layer(x)
    vp.adapt(layer, "loha", targets=[""], rank=2)
    assert torch.equal(layer(x), base), "not the identity at the start"
    for factor in vp.adapter_parameters(layer).values():
        nn.init.normal_(factor)
    outputs = {}
    for plan in PLANS:
        vp.set_plan(layer, plan)
        outputs[plan] = layer(x)
    vp.merge(layer)
    merged = layer(x)
    for plan, output in outputs.items():
        assert (output - merged).norm() < 1e-10 * (merged - base).norm(), f"{plan} is not merged"
"""


@pytest.mark.parametrize(("blocks", "plans"), [(1, ["dense"]), (2, ["dense", "factored"])])
def test_the_method_of_contributing_obeys_the_laws(tmp_path: Path, blocks: int, plans: list[str]):
    source = example("CONTRIBUTING.md", "visionpeft/methods/loha.py")
    if blocks == 2:
        source += "\n" + example("CONTRIBUTING.md", "more of LoHa")
    (tmp_path / "loha.py").write_text(source)
    load = """
        import pathlib, visionpeft.methods
        visionpeft.methods.__path__.append(str(pathlib.Path.cwd()))
        """
    python(textwrap.dedent(load) + LAWS.replace("PLANS", repr(plans)), tmp_path)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    broken = [link for link in links if not (ROOT / link.partition("#")[0]).exists()]
    assert not broken, f"{page}: {broken}"


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_exist(page: str):
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / page).read_text(), re.M))
    assert named <= targets, f"{page}: {sorted(named - targets)}"
