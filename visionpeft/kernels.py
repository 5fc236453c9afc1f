"""Makes the folder ``kernels/`` importable as ``visionpeft.kernels.<op>``, from a checkout and from a wheel."""

from __future__ import annotations

from visionpeft.files import resource

__path__ = [str(resource("kernels"))]
