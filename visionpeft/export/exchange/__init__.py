"""Adapters of diffusion networks as files of other tools, and back: diffusers, HF PEFT, kohya's scripts, LyCORIS."""

from __future__ import annotations

from visionpeft.export.exchange.adopt import Adopted
from visionpeft.export.exchange.changes import deltas
from visionpeft.export.exchange.check import Checked, check
from visionpeft.export.exchange.convert import TARGETS, convert, read
from visionpeft.export.exchange.limits import FORMS
from visionpeft.export.exchange.write import Exchanged, write

__all__ = ["FORMS", "TARGETS", "Adopted", "Checked", "Exchanged", "check", "convert", "deltas", "read", "write"]
