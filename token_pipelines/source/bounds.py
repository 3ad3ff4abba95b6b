"""The window of expiries as the values of the query's two binds.

The binds have the type of the query's own expires_at, so that they can be compared with it: an instant with a zone, a
local time in the source's zone, or text. Where that comparison is not exact, the binds ask for a margin more, and rows
outside the window are dropped here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from token_pipelines.model import to_micros
from token_pipelines.policy import Window
from token_pipelines.source import row_errors
from token_pipelines.source.dialect import Dialect
from token_pipelines.source.query import AFTER, BEFORE

FOLD_MARGIN: Final = timedelta(hours=2)
"""Local times are out of order by an hour when a clock is put back; by two hours on some days of the past."""

TEXT_MARGIN: Final = timedelta(days=2)
"""Text is compared letter by letter, and instants are written with T or a blank, in offsets of up to 14 hours."""

ANY_EXPIRY: Final = Window(
    expires_after=datetime(1970, 1, 10, tzinfo=UTC), expires_before=datetime(9000, 1, 1, tzinfo=UTC)
)
"""The window of resolving: wide, so that a renewed token comes back with its new expiry, and is counted as renewed."""


@dataclass(frozen=True)
class Bounds:
    """A window, the values of the binds that ask for it, and how much more these ask for."""

    window: Window
    values: Mapping[str, datetime | str]
    margin: timedelta

    @classmethod
    def of(cls, window: Window, dialect: Dialect, kind: pa.DataType, zone: str | None) -> "Bounds":
        """The binds for a query whose expires_at is of this type."""
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            return cls(window, {AFTER: window.expires_after, BEFORE: window.expires_before}, timedelta())
        margin = TEXT_MARGIN if dialect.text_instants else FOLD_MARGIN
        clock = ZoneInfo("UTC" if zone is None or dialect.text_instants else zone)
        values = {
            AFTER: (window.expires_after - margin).astimezone(clock).replace(tzinfo=None),
            BEFORE: (window.expires_before + margin).astimezone(clock).replace(tzinfo=None),
        }
        if dialect.text_instants:
            return cls(window, {name: value.isoformat(" ", "seconds") for name, value in values.items()}, margin)
        return cls(window, values, margin)

    def inside(self, rows: pa.Table, expires_at: pa.ChunkedArray) -> pa.Table:
        """The rows whose ``expires_at`` (µs UTC) lies in the window.

        Raises:
            SourceError: for a row so far outside that the query cannot have compared it with the binds.
        """
        micros = expires_at.cast(pa.int64())
        found = pc.min_max(micros).as_py()
        first, end = to_micros(self.window.expires_after), to_micros(self.window.expires_before)
        if found["min"] is None or (found["min"] >= first and found["max"] < end):
            return rows
        # Twice: the binds are a margin wider, and a row's text or local time may be a margin away from its instant.
        slack = 2 * self.margin // timedelta(microseconds=1)
        beyond = pc.or_(pc.less(micros, first - slack), pc.greater_equal(micros, end + slack))
        fault = f"The source query returns an expires_at outside :{AFTER} and :{BEFORE} {{row}}"
        cure = "compare the very expires_at that it returns with both, in a condition that no OR bypasses"
        row_errors.refuse(rows, beyond, fault, cure)
        return rows.filter(pc.and_(pc.greater_equal(micros, first), pc.less(micros, end)))
