"""What a step of training costs with each method, against full fine-tuning, HF PEFT and LyCORIS.

``python -m visionpeft.bench --help`` or ``visionpeft bench --help``.
"""

from __future__ import annotations

from visionpeft.bench.command import main
from visionpeft.bench.compare import DEFAULT_METHODS, Row, run

__all__ = ["DEFAULT_METHODS", "Row", "main", "run"]
