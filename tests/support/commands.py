"""What a command of the command line left behind on the terminal."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Said:
    """Exit status, stdout and stderr."""

    status: int
    out: str
    err: str


Command = Callable[..., Said]
"""The fixture ``command``: ``command("run", "--json")``."""
