"""The page itself: parts in order, one file, no address outside it."""

from __future__ import annotations

from html import escape
from importlib import import_module, resources
from pathlib import Path
from string import Template
from typing import Any

from visionpeft import __version__
from visionpeft.files import atomic_write
from visionpeft.report import parts
from visionpeft.report.content import Content
from visionpeft.report.figures import elbow, learning_curves, merit_over_parameters
from visionpeft.report.markup import drawing, section
from visionpeft.runs.folder import REPORT

SECTIONS = {
    "align": "classification",
    "autoencode": "autoencode",
    "classify": "classification",
    "diffuse": "diffuse",
    "fewshot": "fewshot",
    "segment": "segmentation",
}
"""What each task adds to the page: the module with its ``sections``, imported with its libraries when it is drawn."""


def write_report(folder: str | Path) -> Path:
    """Draw ``report.html`` of a run folder and return its path.

    Raises:
        UserError: it is no run folder, or a file in it is damaged.
    """
    content = Content.read(folder)
    files = resources.files("visionpeft.report")
    page = Template(files.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=escape(content.recipe.name),
        subtitle=parts.subtitle(content),
        style=files.joinpath("style.css").read_text(encoding="utf-8"),
        body=_body(content),
        version=__version__,
    )
    return atomic_write(Path(folder) / REPORT, page)


def _body(content: Content) -> str:
    seeds = len(content.recipe.seeds)
    pooled = f"Means of {seeds} seeds; intervals cover cases and seeds." if seeds > 1 else "Intervals cover cases."
    return "".join(
        (
            parts.headline(content),
            section("Results", parts.results(content), lead=f"On the held-out test split. {pooled}"),
            section("Sweep", *_sweep(content)),
            section("Learning curves", drawing(learning_curves(content))),
            section(
                "Figure of merit and parameters",
                drawing(merit_over_parameters(content), single=True) if _compares(content) else "",
                lead=parts.parameters_lead(content),
            ),
            _sections(content),
            section("Learning rates", parts.tuning(content)),
            section("Plan", parts.plans(content), lead="Which weights are adapted, by which path, and why."),
            section("Recipe", parts.recipe(content)),
            section("Environment", parts.environment(content)),
        )
    )


def _sections(content: Content) -> str:
    task: Any = content.recipe.task  # every task has a name
    return import_module(f"visionpeft.report.{SECTIONS[task.name]}").sections(content)


def _sweep(content: Content) -> tuple[str, ...]:
    return (drawing(elbow(content), single=True), parts.sweep_table(content)) if content.recipe.sweep else ()


def _compares(content: Content) -> bool:
    """Whether parameters tell anything: there are several entries, and what is swept changes their number."""
    return len(content.trained_rows) > 2 and all(key.startswith("method.") for key in content.recipe.sweep)
