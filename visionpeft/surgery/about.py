"""What an adapter file says of itself: method, options, the base it was made on, and what its maker adds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from visionpeft.surgery.fingerprint import fingerprint
from visionpeft.surgery.ledger import record

KEY = "visionpeft"
"""The entry of a safetensors header that holds it, as JSON."""


def about(model: nn.Module, name: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """Version, method and options of an adapter, and the fingerprint of its base; then what a caller adds.

    Args:
        more: such as ``recipe``, ``base`` (where it is published) and ``base_licence``.
    """
    from visionpeft import __version__

    method = record(model, name).method
    return {
        "version": __version__,
        "method": method.name,
        "options": method.options(),
        "base_fingerprint": fingerprint(model),
        **more,
    }


def written_about(header: Mapping[str, str] | None) -> dict[str, Any]:
    """What the header of a file says; empty where it is not ours."""
    try:
        found = json.loads((header or {}).get(KEY, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
