"""``python -m visionpeft.bench``."""

from __future__ import annotations

import sys

from visionpeft.bench.command import main

main(sys.argv[1:])
