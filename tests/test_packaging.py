"""What is declared is what is imported, and the wheel carries what a checkout has."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = ("recipes", "datasets", "kernels")

# Loaded by a library on our behalf, so that no file of ours imports it.
INDIRECT = {
    "tensorboard": "lightning's TensorBoardLogger writes with it",
}
# Pins another distribution that is declared, to the very version.
PART_OF = {"pydantic-core": "pydantic"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: list[str]) -> set[str]:
    names = (re.match(r"[\w.-]+", requirement) for requirement in requirements)
    return {canonical(match.group()) for match in names if match}


def imported() -> dict[str, str]:
    """Third-party top-level modules that the package imports, each with one file that does."""
    found: dict[str, str] = {}
    for folder in ("visionpeft", "kernels"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name.startswith("test_"):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = [node.module]
                found.update({name.partition(".")[0]: str(path.relative_to(ROOT)) for name in names})
    return {name: path for name, path in found.items() if name not in {*sys.stdlib_module_names, "visionpeft"}}


@functools.cache
def distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def providers(module: str) -> set[str]:
    names = (canonical(name) for name in distributions().get(module, [module]))
    return {PART_OF.get(name, name) for name in names}


def test_every_import_is_declared():
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    known = declared(PROJECT["dependencies"] + extras)
    missing = {module: path for module, path in imported().items() if not providers(module) & known}
    assert not missing, f"imported, but not in pyproject.toml: {missing}"


def test_every_dependency_is_imported():
    used = {name for module in imported() for name in providers(module)}
    idle = declared(PROJECT["dependencies"]) - used - INDIRECT.keys()
    assert not idle, f"in pyproject.toml, but never imported: {sorted(idle)}"


def test_every_dependency_has_a_lower_bound():
    unbound = [line for line in PROJECT["dependencies"] if not re.search(r">=|==", line)]
    assert not unbound


def test_the_installed_version_is_the_declared_one():
    assert importlib.metadata.version("visionpeft") == PROJECT["version"]


def test_the_changelog_names_the_version():
    assert f"## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def shipped(folder: str) -> set[str]:
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(ROOT)) for path in files}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_wheel_carries_the_data_folders(wheel: Path, folder: str):
    names = set(zipfile.ZipFile(wheel).namelist())
    missing = {name for name in shipped(folder) if f"visionpeft/{name}" not in names}
    assert shipped(folder) and not missing, f"not in the wheel: {sorted(missing)}"


def test_the_wheel_puts_nothing_beside_the_package(wheel: Path):
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert tops == {"visionpeft", f"visionpeft-{PROJECT['version']}.dist-info"}
    assert "visionpeft/py.typed" in zipfile.ZipFile(wheel).namelist()


@pytest.mark.slow
def test_an_installed_wheel_finds_its_folders(wheel: Path, tmp_path: Path):
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    code = (
        "import visionpeft, visionpeft.kernels\n"
        "from visionpeft.files import resource\n"
        "from visionpeft.data.cards import cards\n"
        f"print(*[resource(name) for name in {FOLDERS}], *visionpeft.kernels.__path__)\n"
        "print(*sorted(cards()))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    places, names = done.stdout.splitlines()[-2:]
    assert {Path(place).parent for place in places.split()} == {target / "visionpeft"}
    assert names.split() == sorted(path.stem for path in (ROOT / "datasets").glob("*.yaml"))
