"""How each kind of database writes what we ask, and what its values may be. Plain facts; opens nothing.

Postgres, MariaDB, MySQL and SQLite are known and tested; every other dialect of SQLAlchemy is read by the plainest SQL.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

_INTEGER: Final = re.compile(r"0|-?[1-9]\d{0,19}")  # in no other notation, or 007 would find 7
_INT64: Final = range(-(2**63), 2**63)
_INT64_OR_UNSIGNED: Final = range(-(2**63), 2**64)

_HAS_ADDRESS: Final = "CASE WHEN trim(email) LIKE '_%' THEN 1 ELSE 0 END AS has_address"
"""For databases without booleans, and for Oracle, where an empty text is a null."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One kind of database. In the cures, ``{name}`` stands for a column.

    Where a database compares whatever with whatever, ``widest`` are binds that let every row through, whatever its
    expires_at is kept as; ``misread`` is true of one that no window would hold, ``readable`` of one that some would.
    """

    name: str
    from_epoch: str
    from_date: str
    from_text: str
    without_extremes: str
    other_numbers: str = "divide milliseconds by 1000"
    binary_as_text: str = "hex({name})"
    has_booleans: bool = False
    text_instants: bool = False
    backslashes: bool = False
    integers: range = _INT64_OR_UNSIGNED
    widest: tuple[tuple[object, object], ...] = ()
    misread: str | None = None
    readable: str | None = None
    explain: str = "EXPLAIN"
    id_as_text: str = "{name}"
    has_address: str = _HAS_ADDRESS

    def literals(self, token_ids: Collection[str], kind: pa.DataType) -> list[str | int]:
        """Canonical ids as this database compares them with a ``token_id`` of this type, so that an index is used.

        An id is left out only where no column of this type can hold it.
        """
        if self.has_booleans:  # Postgres reads an untyped literal in the column's own type
            return list(token_ids)
        written = (int(token_id) for token_id in token_ids if _INTEGER.fullmatch(token_id))
        numbers = [number for number in written if number in self.integers]
        if pa.types.is_integer(kind):
            return list(numbers)
        # SQLite's columns have no types, and 5 = '5' is false where neither side is a column.
        return [*token_ids, *numbers] if self.text_instants else list(token_ids)


_DATE: Final = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
_SIX_DIGITS: Final = "*[0-9]" * 6 + "*"
"""In SQLite's GLOB. With fewer digits a text is no instant but a word for never, as 0 and -1 are among numbers."""

POSTGRES: Final = Dialect(
    name="Postgres",
    from_epoch="to_timestamp({name})",
    from_date="({name}::timestamp AT TIME ZONE 'UTC')",
    from_text="({name}::timestamptz)",
    without_extremes="CASE WHEN isfinite({name}) THEN {name} END",
    binary_as_text="encode({name}, 'hex')",
    has_booleans=True,
    id_as_text="CAST({name} AS text) AS {name}",
    has_address="(email IS NOT NULL AND trim(email) <> '') AS has_address",
)
MYSQL: Final = Dialect(
    name="MariaDB or MySQL",
    from_epoch="from_unixtime({name}), with source.timezone: UTC",
    from_date="timestamp({name})",
    from_text="CAST({name} AS datetime(6))",
    without_extremes="nullif({name}, 0)",
    backslashes=True,
    widest=((-(2**62), 2**62), ("", "\U0010ffff")),
    readable="expires_at IS NOT NULL",
)
SQLITE: Final = Dialect(
    name="SQLite",
    from_epoch="(datetime({name}, 'unixepoch') || 'Z')",
    from_date="({name} || ' 00:00:00Z')",
    from_text="(datetime({name}) || 'Z')",
    without_extremes="CASE WHEN {name} BETWEEN '0001' AND '9999-13' THEN {name} END",
    other_numbers="divide milliseconds by 1000, and of a Julian day write (datetime({name}) || 'Z')",
    text_instants=True,
    integers=_INT64,
    widest=((-(2**62), b"\xff" * 16), ("0000-01-01 00:00:00", "9999-12-31 23:59:59")),
    # Numbers are below any text, blobs above; asked so rather than by typeof(), whose calls take three times as long.
    misread=f"""(
        expires_at >= x'' OR expires_at > 0 AND expires_at < ''
        OR expires_at >= '' AND expires_at NOT GLOB '{_DATE}*' AND expires_at GLOB '{_SIX_DIGITS}'
    )""",
    readable=f"(expires_at GLOB '{_DATE}[T ]*' AND expires_at BETWEEN '1971' AND '9000')",
    explain="EXPLAIN QUERY PLAN",
)
PLAIN: Final = Dialect(
    name="this database",
    from_epoch="a function of the database that makes a timestamp of it",
    from_date="CAST({name} AS timestamp)",
    from_text="CAST({name} AS timestamp)",
    without_extremes="CASE WHEN {name} < DATE '9999-01-01' THEN {name} END",
)

_BY_BACKEND: Final = {"postgresql": POSTGRES, "mysql": MYSQL, "mariadb": MYSQL, "sqlite": SQLITE}


def dialect_of(backend: str) -> Dialect:
    """The dialect of what SQLAlchemy calls a backend: the part of a URL before the + or the colon."""
    return _BY_BACKEND.get(backend, PLAIN)
