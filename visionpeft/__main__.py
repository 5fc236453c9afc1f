"""``python -m visionpeft`` is the command ``visionpeft``."""

from __future__ import annotations

from visionpeft.cli import main

if __name__ == "__main__":
    main()
