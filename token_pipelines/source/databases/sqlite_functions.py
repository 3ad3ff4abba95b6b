"""SQLite's date functions as the probe needs them: a value that they make null of stays what it is.

`datetime('[2026-11-22 09:00:00]')` is null, and a comparison with null is never true. So a query that compares what
datetime() returns passes over the row in silence, whatever window it is asked for. With these functions it comes.
"""

import re
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

IS_NULL: Final = "token_pipelines_is_null"
"""A function of the probe's: whether SQLite itself makes null of a text as an instant."""

_POSITIONS: Final = {"date": 0, "time": 0, "datetime": 0, "julianday": 0, "unixepoch": 0, "strftime": 1}
"""At which argument each function has its value."""

CALLS: Final = re.compile(rf"\b({'|'.join(_POSITIONS)})\s*\(", re.IGNORECASE)
_CANONICAL: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])-([01]\d|2[0-8]) ([01]\d|2[0-3]):[0-5]\d:[0-5]\d")
"""What datetime() returns as it is."""


def keep_odd_values(driver: sqlite3.Connection) -> None:
    """Replace the date functions of this connection."""
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    for name, position in _POSITIONS.items():
        driver.create_function(name, -1, _forgiving(memory, name, position))
    driver.create_function(IS_NULL, 1, lambda value: int(_real(memory, "datetime", (value,)) is None))


def _forgiving(memory: sqlite3.Connection, name: str, position: int) -> Callable[..., Any]:
    def function(*arguments: Any) -> Any:  # noqa: ANN401 -- of any type that SQLite has
        found = _real(memory, name, arguments)
        return arguments[position] if found is None and len(arguments) > position else found

    return function


def _real(memory: sqlite3.Connection, name: str, arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401 -- as above
    """What SQLite's own function returns."""
    if name == "datetime" and len(arguments) == 1 and _is_canonical(arguments[0]):
        return arguments[0]
    with suppress(sqlite3.Error):
        places = ", ".join("?" * len(arguments))
        return memory.execute(f"SELECT {name}({places})", arguments).fetchone()[0]
    return None


def _is_canonical(value: object) -> bool:
    return isinstance(value, str) and _CANONICAL.fullmatch(value) is not None
