"""Adapters of diffusion networks as files of other tools, and back: diffusers, HF PEFT, kohya's scripts, LyCORIS."""

from __future__ import annotations

from visionpeft.export.exchange.changes import deltas
from visionpeft.export.exchange.limits import FORMS
from visionpeft.export.exchange.write import Exchanged, write

__all__ = ["FORMS", "Exchanged", "deltas", "write"]
