"""Places the top-level data folders inside the wheel, where ``visionpeft.files.resource`` looks first.

An editable install gets none of them: a copy in site-packages would go stale and hide the checkout, and
hatch's own ``force-include`` makes one there.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("recipes", "datasets", "kernels")


class DataFolders(BuildHookInterface):
    """Adds ``FOLDERS`` under ``visionpeft/`` to a real wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "editable":
            build_data["force_include"].update({name: f"visionpeft/{name}" for name in FOLDERS})
