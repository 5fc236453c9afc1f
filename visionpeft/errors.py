"""The one family of errors, and the near-name hints they carry.

Every error that a user can cause derives from :class:`UserError`; the command line turns it into exit code 2.
A message names the key or file, the value found, and what would be right.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VisionPEFTError(Exception):
    """Root of all errors raised on purpose by visionpeft."""


class UserError(VisionPEFTError):
    """The input is wrong and the user can mend it (exit code 2)."""


class OptionError(UserError, ValueError):
    """An option has a value its method, recipe or command does not accept."""


class UnknownNameError(UserError, KeyError):
    """A name (method, key, data set, backbone, …) is not registered."""

    def __str__(self) -> str:  # KeyError would show the repr
        return str(self.args[0])


class TargetError(UserError, ValueError):
    """A target matches nothing, is dead, or cannot be adapted."""


class SiteError(UserError, ValueError):
    """A method does not support a site; the message is its one-sentence reason."""


class AdapterFileError(UserError, ValueError):
    """An adapter folder or state dict is damaged, foreign or does not fit the model."""


class DataError(UserError, ValueError):
    """A data set is missing, unreadable or does not fit its card."""


class StateError(UserError, RuntimeError):
    """The model is not in a state that allows the call (merged, compiled, wrapped, …)."""


def did_you_mean(word: str, options: Iterable[str], limit: int = 3) -> str:
    """Return ``" Did you mean 'a' or 'b'?"``, or the known names when nothing is near."""
    names = sorted(set(options))
    by_lower = {name.lower(): name for name in reversed(names)}
    near = [by_lower[n] for n in difflib.get_close_matches(word.lower(), by_lower, n=limit, cutoff=0.5)]
    if near:
        return f" Did you mean {' or '.join(repr(n) for n in near)}?"
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    return f" Known: {shown}." if names else ""


def unknown(kind: str, word: str, options: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that is not among ``options``."""
    return UnknownNameError(f"unknown {kind} {word!r}.{did_you_mean(word, options)}")
