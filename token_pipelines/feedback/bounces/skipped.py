"""Sums up what a reading skips: cron mails whatever it prints, and a mailbox may hold 100,000 spams."""

from collections import Counter
from collections.abc import Callable
from typing import Final

SHOWN: Final = 3
"""Messages that are named of each kind; the others are only counted."""

NAME_AT_MOST: Final = 200
"""Characters of a name that are shown."""

_KINDS: Final = {
    "unreadable": "cannot be read; check the permissions, then read them again",
    "early": "about a notice that a run is sending right now; read them again later",
    "unmatched": "about no notice of this ledger",
    "not_reports": "neither a delivery report nor a complaint",
}


class Skipped:
    """The messages that were skipped, by kind."""

    def __init__(self) -> None:
        """Nothing was skipped yet."""
        self._counts: Counter[str] = Counter()
        self._names: dict[str, list[str]] = {kind: [] for kind in _KINDS}

    def add(self, kind: str, name: str) -> None:
        """A message of this kind; ``name`` is safe to print."""
        self._counts[kind] += 1
        if len(self._names[kind]) < SHOWN:
            self._names[kind].append(name if len(name) <= NAME_AT_MOST else f"{name[:NAME_AT_MOST]}…")

    def explain(self, on_warning: Callable[[str], None]) -> None:
        """One sentence about all of them, if there are any."""
        parts = [self._explain(kind, meaning) for kind, meaning in _KINDS.items() if self._counts[kind]]
        if parts:
            on_warning(f"Skipped: {'. '.join(parts)}.")

    def _explain(self, kind: str, meaning: str) -> str:
        names, count = ", ".join(self._names[kind]), self._counts[kind]
        return f"{count:,} {meaning}: {names}{f' and {count - SHOWN:,} more' if count > SHOWN else ''}"
