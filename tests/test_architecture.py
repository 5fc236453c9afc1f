"""Holds the shape of the house: imports run down only, importing is cheap, files and functions stay short."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A room may import the rooms of earlier lines, and its neighbours on its own line as long as no cycle arises.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "callable_module"),
    ("files",),
    ("algebra", "kernels"),
    ("methods",),
    ("surgery",),
    ("backbones", "data", "metrics"),
    ("tasks",),
    ("recipe",),
    ("runs", "report", "export", "predict", "pipeline", "bench"),
    ("cli",),
)
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert found, f"no Python files under {folders}"
    return found


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


def room_of(path: Path) -> str:
    """``visionpeft/surgery/mount.py`` → ``surgery``; ``kernels/…`` → ``kernels``; the package → ``""``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "kernels":
        return "kernels"
    return "" if parts[1].startswith("__") else parts[1]


def imported_modules(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every absolute dotted name that a file imports, at any depth, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "visionpeft":
                yield from ((f"visionpeft.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield node.module, node.lineno


def rooms_imported(path: Path) -> set[tuple[str, int]]:
    """The rooms of visionpeft that a file imports; the package's root counts as ``""``."""
    found = set()
    for name, line in imported_modules(ast.parse(path.read_text())):
        head, _, tail = name.partition(".")
        if head == "visionpeft" and tail != "__version__":
            room = tail.partition(".")[0]
            found.add((room if room in FLOOR else "", line))
    return found


HOUSE = [path for path in sources("visionpeft", "kernels") if not path.name.startswith("test_")]


def test_every_room_has_a_floor():
    rooms = {room_of(path) for path in HOUSE} - {""}
    assert rooms <= FLOOR.keys(), f"rooms without a floor: {sorted(rooms - FLOOR.keys())}"


@pytest.mark.parametrize("path", [p for p in HOUSE if room_of(p)], ids=label)
def test_imports_run_down_only(path: Path):
    room = room_of(path)
    climbs = [
        f"line {line}: {room} imports {other or 'the package root'}"
        for other, line in sorted(rooms_imported(path), key=lambda item: item[1])
        if other != room and FLOOR.get(other, len(FLOORS)) > FLOOR[room]
    ]
    assert not climbs, climbs


@pytest.mark.parametrize("path", sources("visionpeft"), ids=label)
def test_imports_are_absolute(path: Path):
    relative = [n.lineno for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and n.level]
    assert not relative, f"relative imports on lines {relative} escape the import table"


def test_neighbouring_rooms_form_no_cycle():
    graph: dict[str, set[str]] = {}
    for path in HOUSE:
        if room := room_of(path):
            graph.setdefault(room, set()).update({other for other, _ in rooms_imported(path)} - {room, ""})
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the rooms


def modules_after(statement: str) -> set[str]:
    """Top-level modules loaded in a fresh process after ``statement``."""
    code = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_importing_the_package_loads_torch_at_most():
    extra = modules_after("import visionpeft") - modules_after("import torch") - {"visionpeft"}
    third_party = {name for name in extra if name not in sys.stdlib_module_names}
    assert not third_party, f"`import visionpeft` also loads {sorted(third_party)}"


def test_root_help_does_not_load_torch():
    loaded = modules_after(
        "import sys\nfrom visionpeft.cli import main\nsys.argv = ['visionpeft', '--help']\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code, stop.code"
    )
    heavy = loaded & {"torch", "numpy", "pydantic", "lightning", "timm", "matplotlib", "monai", "diffusers"}
    assert not heavy, f"`visionpeft --help` loads {sorted(heavy)}"


@pytest.mark.parametrize("path", sources("visionpeft", "kernels", "tests"), ids=label)
def test_files_stay_short(path: Path):
    lines = len(path.read_text().splitlines())
    assert lines < MAX_FILE_LINES, f"{label(path)} has {lines} lines: give its second idea a file of its own"


@pytest.mark.parametrize("path", HOUSE, ids=label)
def test_functions_stay_short(path: Path):
    nodes = ast.walk(ast.parse(path.read_text()))
    lengths = {node.name: code_lines(node) for node in nodes if isinstance(node, Function)}
    too_long = {name: lines for name, lines in lengths.items() if lines > MAX_FUNCTION_LINES}
    assert not too_long, f"{label(path)}: lines without docstring: {too_long}"


def code_lines(function: Function) -> int:
    """Lines from ``def`` to the end, less the docstring: explaining must never cost."""
    docstring = span(function.body[0]) if ast.get_docstring(function) else 0
    return span(function) - docstring


def span(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("folder", ["datasets", "kernels", "recipes"])
def test_data_folders_are_no_packages(folder: str):
    assert (ROOT / folder).is_dir()
    assert not list((ROOT / folder).rglob("__init__.py")), f"{folder}/ would hide the package of that name"


def test_pytest_does_not_expose_the_card_folder_as_hugging_face_datasets():
    spec = importlib.util.find_spec("datasets")
    places = spec.submodule_search_locations if spec else None
    assert str(ROOT / "datasets") not in (places or ())


def test_the_installed_package_does_not_expose_the_repository_root():
    code = "import importlib.util as u; print(u.find_spec('hatch_build'))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "None"


def test_a_room_never_hides_the_function_of_its_name():
    """Importing a submodule binds it on the package: `vp.methods` must stay the function that it is."""
    modules_after(
        "import visionpeft as vp, visionpeft.methods, visionpeft.surgery.adapt\n"
        "names = [name for name in vp.__all__ if name not in ('__version__', 'errors')]\n"
        "assert not (bad := [name for name in names if not callable(getattr(vp, name))]), bad"
    )
