"""Rows of a driver as Arrow columns. A column's type follows its values, or what the driver says where it says more."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from token_pipelines.errors import SourceContractError
from token_pipelines.source.contract import NEVER_NULL_INSTANTS
from token_pipelines.source.dialects import MYSQL, Dialect
from token_pipelines.source.instants import ZERO_DATE

_UTC: Final = pa.timestamp("us", tz="UTC")
_NAIVE: Final = pa.timestamp("us")
_BIT: Final = 16
_INT64_MAX: Final = 2**63 - 1
_MYSQL_TYPES: Final = {
    **dict.fromkeys((1, 2, 3, 8, 9, 13), pa.int64()),
    **dict.fromkeys((4, 5), pa.float64()),
    7: _UTC,
    10: pa.date32(),
    12: _NAIVE,
    _BIT: pa.int64(),
}
"""MySQL's types by their numbers in the protocol. A TIMESTAMP (7) is an instant and comes in the session's zone, which
is UTC; a DATETIME (12) is what somebody wrote down. Text and binary share their numbers: only values tell."""

_MYSQL_NO_INSTANTS: Final = {
    **dict.fromkeys((15, 247, 249, 250, 251, 252, 253, 254), pa.string()),
    **dict.fromkeys((0, 246), pa.decimal128(38, 6)),
}
"""Text or binary, and decimals."""


def types_of(cursor: Any, dialect: Dialect) -> list[pa.DataType | None]:  # noqa: ANN401 -- a cursor of any driver
    """What the driver says of each column; None where it says nothing that we understand."""
    return [_MYSQL_TYPES.get(column[1]) if dialect is MYSQL else None for column in cursor.description]


def types_without_rows(cursor: Any, dialect: Dialect) -> list[pa.DataType | None]:  # noqa: ANN401 -- as above
    """What the driver says of each column of no rows, where only that can tell.

    An instant that is never null is text in its rows where it is text here; another one may be a null of any type.
    """
    known = types_of(cursor, dialect)
    if dialect is not MYSQL:
        return known
    judged = [column[0] in NEVER_NULL_INSTANTS for column in cursor.description]
    found = [_MYSQL_NO_INSTANTS.get(column[1]) for column in cursor.description]
    return [kind or (other if is_judged else None) for kind, other, is_judged in zip(known, found, judged, strict=True)]


def to_table(names: Sequence[str], types: Sequence[pa.DataType | None], rows: Sequence[Sequence[Any]]) -> pa.Table:
    """The rows as a table.

    Raises:
        SourceContractError: for a column whose values are of several types.
    """
    values = list(zip(*rows, strict=True)) or [()] * len(names)
    arrays = [_column(name, kind, column) for name, kind, column in zip(names, types, values, strict=True)]
    return pa.Table.from_arrays(arrays, names=list(names))


def _column(name: str, kind: pa.DataType | None, values: Sequence[Any]) -> pa.Array:
    if kind is not None and pa.types.is_timestamp(kind):
        return _instants(kind, values)
    if kind is not None and pa.types.is_date(kind):
        return pa.array([None if isinstance(value, str) else value for value in values], kind)
    if kind == pa.int64():  # BIT comes as bytes; of UNSIGNED BIGINT the upper half is no int64
        values = [int.from_bytes(value) if isinstance(value, bytes) else value for value in values]
        if any(isinstance(value, int) and value > _INT64_MAX for value in values):
            values = [None if value is None else Decimal(value) for value in values]
        return pa.array(values) if any(value is not None for value in values) else pa.array(values, kind)
    kinds = {type(value) for value in values if value is not None}
    if kinds and kinds <= {int, str, UUID, Decimal} and kinds not in ({int}, {str}):
        values = [None if value is None else str(value) for value in values]
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        found = " and ".join(sorted(each.__name__ for each in kinds))
        msg = f"The source query's {name} holds values of several types ({found}); cast it to one in SQL."
        raise SourceContractError(msg) from None


def _instants(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    """MySQL's 0000-00-00 comes as text; it is kept apart from nulls, to be named with its row."""
    zero = [isinstance(value, str) for value in values]
    if not any(zero):
        return pa.array(values, kind)
    known = pa.array([None if isinstance(value, str) else value for value in values], kind)
    return pc.if_else(pa.array(zero), pa.scalar(ZERO_DATE, pa.int64()).cast(kind), known)
