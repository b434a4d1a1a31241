"""Every error that a user can meet. Each says what happened, what was expected, and what to type next.

TunesmithError          exit code
├── UsageError          2   a wrong flag, an unknown config key, a name that is taken
├── DataError           3   the user's data, with file:line:column
├── ModelError          4   a base that cannot be loaded, a template that cannot be trained
├── ResourceError       5   not enough memory or disk
├── RemoteError         6   an endpoint that failed for good
└── Interrupted       130   Ctrl-C or SIGTERM; the state is saved
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TunesmithError(Exception):
    """The base of all errors that are the user's to mend: shown without a traceback."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", expected: str = "", fix: str = "") -> None:
        self.what, self.where, self.expected, self.fix = what, where, expected, fix
        super().__init__(self.render())

    def render(self) -> str:
        """The whole message in at most three lines: what (with where), expected, what to type next."""
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.fix:
            lines.append(f"  next: {self.fix}")
        return "\n".join(lines)


class UsageError(TunesmithError):
    exit_code = 2


class DataError(TunesmithError):
    exit_code = 3


class ModelError(TunesmithError):
    exit_code = 4


class ResourceError(TunesmithError):
    exit_code = 5


class RemoteError(TunesmithError):
    exit_code = 6


class Interrupted(TunesmithError):
    exit_code = 130


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint such as "did you mean 'max_steps'?", or the list of what there is, or "" where there is nothing."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(names)}" if names else ""
