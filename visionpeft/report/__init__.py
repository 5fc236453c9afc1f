"""``report.html``: one self-contained page about a run, drawn from its folder alone."""

from __future__ import annotations

from visionpeft.report.page import write_report

__all__ = ["write_report"]
