"""From a run folder to artifacts that need no visionpeft: merged weights, a ``torch.export`` program, ONNX."""

from __future__ import annotations

from visionpeft.export.artifacts import FORMATS, export_run

__all__ = ["FORMATS", "export_run"]
