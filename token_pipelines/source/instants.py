"""Converts a column of instants to UTC: with a zone, without one, or text. Refuses values that are no instants.

Knows Arrow, not databases. A value without a zone is read in the source's zone: as the earlier instant where the clock
is put back, as the first instant after the gap where it is put forward.
"""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from token_pipelines.errors import ConfigError, SourceError
from token_pipelines.source import row_errors
from token_pipelines.source.contract import NEVER_NULL_INSTANTS
from token_pipelines.source.dialect import Dialect

UTC: Final = pa.timestamp("us", tz="UTC")

FIRST: Final = -62_135_596_800_000_000  # 0001-01-01
LAST: Final = 253_402_300_799_999_999  # the last of 9999
"""The range of Python's datetime, in µs since 1970."""

ONE_DAY: Final = 86_400_000_000
"""In µs. The first of January in some zone lies within a day of the one in UTC."""

NEVER_BEFORE: Final = 2 * ONE_DAY
"""An optional instant before 1970-01-03 means never: programs write 0001-01-01 or 1970-01-01 for a time that is not
set, in any zone, and no token was used then."""

FORM: Final = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?$"
ZONE: Final = r"(Z|[+-]\d\d(:?\d\d)?)$"
"""An instant as text, and the end of one with a zone. Check FORM first: a plain date ends like an offset."""

CURE_OF_TEXT: Final = "write instants like 2026-01-31 09:00:00 or 2026-01-31T09:00:00Z"


def to_utc(rows: pa.Table, name: str, zone: str | None, dialect: Dialect) -> pa.ChunkedArray:
    """The column in microseconds UTC.

    Raises:
        SourceError: naming a row whose value is no instant.
    """
    column = rows[name]
    if pa.types.is_null(column.type):
        return column.cast(UTC)
    if _is_text(column.type):
        return _in_range(_from_text(rows, name, zone, dialect), name)
    if column.type.unit != "us":
        column = column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    _refuse_extremes(rows, name, column, dialect)
    if column.type.tz is None:
        column = _assume(column, zone)
    return _in_range(column.cast(UTC), name)


def check_zone(zone: str) -> None:
    """Look the zone up, as converting a column does: Arrow reads the system's files, and none of Python's packages.

    Raises:
        ConfigError: if the system has no such file.
    """
    try:
        _assume(pa.chunked_array([[None]], pa.timestamp("us")), zone)
    except pa.ArrowInvalid:
        cure = (
            "install the system's package tzdata (apt-get install tzdata), or convert the columns in SQL and write UTC"
        )
        msg = f"source.timezone: {zone} is not among the time zones of this machine; {cure}."
        raise ConfigError(msg) from None


def _assume(column: pa.ChunkedArray, zone: str | None) -> pa.ChunkedArray:
    """The instants of local times in a zone."""
    if zone == "UTC":  # known without any file
        return column.cast(pa.int64()).cast(UTC)
    return pc.assume_timezone(column, zone, ambiguous="earliest", nonexistent="latest")


def _in_range(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """What lies beyond Python's calendar only because of its zone, at its edge; null for an optional "never"."""
    micros = column.cast(pa.int64())
    found = pc.min_max(micros).as_py()
    if found["min"] is None or (found["min"] >= NEVER_BEFORE and found["max"] <= LAST):
        return column
    micros = pc.min_element_wise(pc.max_element_wise(micros, FIRST, skip_nulls=False), LAST, skip_nulls=False)
    if name not in NEVER_NULL_INSTANTS:
        micros = pc.if_else(pc.less(micros, NEVER_BEFORE), None, micros)
    return micros.cast(UTC)


def _refuse_extremes(rows: pa.Table, name: str, column: pa.ChunkedArray, dialect: Dialect) -> None:
    micros = column.cast(pa.int64())
    found = pc.min_max(micros).as_py()
    first = FIRST - ONE_DAY  # 0001-01-01, written in a zone east of UTC
    if found["min"] is None or (found["min"] >= first and found["max"] <= LAST):
        return
    cure = f"write {dialect.without_extremes.format(name=name)}, or exclude such rows in SQL"
    outside = pc.or_(pc.less(micros, first), pc.greater(micros, LAST))
    faults = {name: pc.is_in(micros, pa.array(values)) for name, values in dialect.extremes.items()}
    for words, where in (faults | {"an instant before the year 1 or after 9999 as": outside}).items():
        row_errors.refuse(rows, pc.fill_null(where, False), f"The source query returns {words} {name} {{row}}", cure)  # noqa: FBT003 -- Arrow's value to fill with


def _from_text(rows: pa.Table, name: str, zone: str | None, dialect: Dialect) -> pa.ChunkedArray:
    text = rows[name].cast(pa.string())
    dates = pc.fill_null(pc.match_substring_regex(text, r"^\d{4}-\d\d-\d\d$"), False)  # noqa: FBT003 -- as above
    midnight = f"say in SQL at which instant of that day it is meant, for example {dialect.from_date.format(name=name)}"
    row_errors.refuse(rows, dates, f"The source query's {name} is a date without a time {{row}}", midnight)
    odd = pc.fill_null(pc.invert(pc.match_substring_regex(text, FORM)), False)  # noqa: FBT003 -- as above
    row_errors.refuse(rows, odd, f"The source query's {name} is text that is no instant {{row}}", CURE_OF_TEXT)
    zoned = pc.fill_null(pc.match_substring_regex(text, ZONE), False)  # noqa: FBT003 -- as above
    if zone is None:
        cure = "end it in Z where it is UTC, or set source.timezone to the zone it is kept in"
        without = pc.and_(pc.invert(zoned), pc.is_valid(text))
        row_errors.refuse(rows, without, f"The source query's {name} has no time zone {{row}}", cure)
    # Digits beyond microseconds are cut: Arrow would refuse them.
    text = pc.replace_substring_regex(text, r"(\.\d{6})\d+", r"\1")
    null = pa.scalar(None, pa.string())
    aware = _parsed(rows, name, pc.if_else(zoned, text, null), UTC)
    if pc.all(zoned).as_py() or zone is None:
        return aware
    local = _parsed(rows, name, pc.if_else(zoned, null, text), pa.timestamp("us"))
    return pc.coalesce(aware, _assume(local, zone).cast(UTC))


def _parsed(rows: pa.Table, name: str, text: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        return text.cast(kind)
    except pa.ArrowInvalid:  # such as the 30th of February; the message quotes it
        odd = pa.chunked_array([[value is not None and not _parses(value, kind) for value in text.to_pylist()]])
        fault = f"The source query's {name} is text that is no instant {row_errors.sample(rows, odd)}; {CURE_OF_TEXT}."
        raise SourceError(fault) from None


def _parses(value: str, kind: pa.DataType) -> bool:
    try:
        pa.scalar(value, pa.string()).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
