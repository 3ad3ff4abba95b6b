"""Makes the text of a batch readable, and finds the rows that nobody can read.

Text that is only shown is repaired and shortened. Ids and addresses are never repaired: two people could become one,
and be mailed about each other's tokens. A row with such an id or address gets the name of the column into its column
``unreadable``; every other row goes on. What the query promises (types, nulls, zones) is not looked at here: `tokens`
refuses that, for all rows.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from token_pipelines.errors import TokenPipelinesError
from token_pipelines.source.contract import IDS, KINDS
from token_pipelines.source.dialect import ID_OCTETS, TEXT_AT_MOST
from token_pipelines.token_facts import Kind

UNREADABLE: Final = "unreadable"

ADDRESS: Final = "email"

TAGS: Final = ("locale", "timezone")
TAG_AT_MOST: Final = 100
"""Characters of a locale or of a time zone's name. A longer one is no such name, and is left out."""

ESCAPED_AT_MOST: Final = 80
"""Octets shown of an id that cannot be read."""

Made = TypeVar("Made")


def readable(rows: pa.Table) -> pa.Table:
    """The rows with one more column, UNREADABLE: the column whose value cannot be read, empty where all can.

    An id that cannot be read is shown with escapes, other such values are null.
    """
    culprits = pa.chunked_array([pa.repeat(pa.scalar("", pa.string()), rows.num_rows)])
    for position, name in enumerate(rows.column_names):
        column, kind = rows[name], KINDS.get(name)
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            continue
        column, broken = _decoded(column)
        if kind is Kind.ID:
            faulty = pc.or_(pc.match_substring(column, "\0"), pc.greater(pc.binary_length(column), ID_OCTETS))
            broken = faulty if broken is None else pc.or_(broken, faulty)
        elif broken is not None and kind is not Kind.INSTANT and name != ADDRESS:
            broken = None  # only shown: repaired
        if broken is not None and pc.any(broken).as_py():
            first = pc.and_(pc.fill_null(broken, False), pc.equal(culprits, ""))  # noqa: FBT003 -- Arrow's value to fill with
            culprits = pc.if_else(first, name, culprits)
            column = _without(rows[name], column, broken) if kind is Kind.ID else pc.if_else(broken, None, column)
        if kind is Kind.TEXT:
            column = _shortened(column, name)
        rows = rows.set_column(position, name, column)
    return rows.append_column(UNREADABLE, culprits)


def apart(
    rows: pa.Table, make: Callable[[pa.Table], Made], stand_in: Callable[[pa.Table], Made], *, forgive: bool = False
) -> list[Made]:
    """What ``make`` makes of the rows; a single row that it fails on is given to ``stand_in``.

    The batch is halved until that row is found. Errors that refuse the query pass through, unless ``forgive`` is set.
    """
    try:
        return [make(rows)]
    except Exception as error:
        if isinstance(error, TokenPipelinesError) and not forgive:
            raise
        if rows.num_rows == 1:
            return [stand_in(rows)]
    middle = rows.num_rows // 2
    halves = (rows.slice(0, middle), rows.slice(middle))
    return [made for half in halves for made in apart(half, make, stand_in, forgive=forgive)]


def has_readable_ids(rows: pa.Table) -> pa.ChunkedArray:
    """Per row of `readable`: whether both ids can be read."""
    return pc.invert(pc.is_in(rows[UNREADABLE], pa.array(IDS)))


def _decoded(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray | None]:
    """The column with U+FFFD for what is no UTF-8, and where that was; None where it was nowhere."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        octets = _octets(column)
    else:
        return column, None
    texts = [None if each is None else each.decode("utf-8", "replace") for each in octets]
    broken = [text is not None and text.encode() != each for each, text in zip(octets, texts, strict=True)]
    return pa.chunked_array([pa.array(texts, pa.string())]), pa.chunked_array([pa.array(broken)])


def _octets(column: pa.ChunkedArray) -> list[bytes | None]:
    kind = pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary()
    return [each for chunk in column.chunks for each in chunk.view(kind).to_pylist()]


def _without(column: pa.ChunkedArray, repaired: pa.ChunkedArray, broken: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids, with escapes for what cannot be read: enough to find the row, and never equal to a repaired id."""
    shown = [
        _escaped(octets or b"") if is_broken else text
        for octets, text, is_broken in zip(_octets(column), repaired.to_pylist(), broken.to_pylist(), strict=True)
    ]
    return pa.chunked_array([pa.array(shown, pa.string())])


def _escaped(octets: bytes) -> str:
    shown = ascii(octets[:ESCAPED_AT_MOST])[2:-1]
    return "…" if "@" in shown else shown


def _shortened(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    longest = pc.max(pc.binary_length(column)).as_py() or 0
    if name in TAGS:
        if longest <= TAG_AT_MOST:
            return column
        return pc.if_else(pc.greater(pc.binary_length(column), TAG_AT_MOST), None, column)
    return column if longest <= TEXT_AT_MOST else pc.utf8_slice_codeunits(column, 0, TEXT_AT_MOST)
