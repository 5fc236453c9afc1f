"""How good generated pictures are: distances to real ones, style, content kept, diversity, memorising."""

from __future__ import annotations

from visionpeft.metrics.generation.distances import fid, fid_floor, kid

__all__ = ["fid", "fid_floor", "kid"]
