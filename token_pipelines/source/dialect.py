"""How one kind of database writes SQL, and what its values may be. Plain facts; opens nothing.

Each kind's facts are in its module of `databases`.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

_INTEGER: Final = re.compile(r"0|-?[1-9]\d{0,19}")  # in no other notation, or 007 would find 7
_INT64_OR_UNSIGNED: Final = range(-(2**63), 2**64)

TEXT_AT_MOST: Final = 4096
"""Characters of a text that are read. Names and scopes are shown with 80, and no address is longer than 254."""

ID_OCTETS: Final = 1000
"""The longest id, in UTF-8. The ledger's unique index takes keys of 2,700 octets, and a key holds two ids."""

_HAS_ADDRESS: Final = "CASE WHEN trim(email) LIKE '_%' THEN 1 ELSE 0 END AS has_address"
"""For databases without booleans, and for Oracle, where an empty text is a null."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One kind of database's SQL.

    In the cures (``from_epoch`` to ``binary_as_text``) and in ``id_as_text``, ``{name}`` stands for a column.
    """

    name: str

    from_epoch: str
    from_date: str
    from_text: str
    without_extremes: str
    other_numbers: str = "divide milliseconds by 1000"
    binary_as_text: str = "hex({name})"

    has_booleans: bool = False
    """There is a boolean type; 0 and 1 of a number are then no boolean."""

    text_instants: bool = False
    """Instants are kept as text, are compared letter by letter, and the binds are text too."""

    backslashes: bool = False
    """A backslash escapes a quote, ``#`` begins a comment, and ``--`` only with a blank behind it."""

    extremes: Mapping[str, Collection[int]] = field(default_factory=dict)
    """What the reader makes of values that are no instants, in µs since 1970, by how a message names one."""

    integers: range = _INT64_OR_UNSIGNED
    """The integers that a column can hold."""

    untyped_literals: bool = False
    """A literal in quotes is read in the type of the column that it is compared with."""

    untyped_columns: bool = False
    """A column has no type, so that an id may be kept as a number in one row and as text in another."""

    explain: str = "EXPLAIN"
    id_as_text: str = "{name}"
    has_address: str = _HAS_ADDRESS

    shortened: str = "{name}"
    """A text column with at most TEXT_AT_MOST characters, so that one long value fills no memory. A second limit, on
    arrival, holds for every database."""

    flat_array: str = "{name}"
    """An array of scopes without nesting, and not longer than what is shown or counted of it."""

    # For `expiry_probe`, where a database compares any value with any other.

    probe_each_run: bool = False
    """Values of several types may share a column, so that a bad one may come at any time."""

    widest: tuple[tuple[object, object], ...] = ()
    """Pairs of binds that let every row through, whatever its expires_at is kept as."""

    misread: str | None = None
    """A condition: no window would ever hold this expires_at. Only where the columns' types do not tell it."""

    calls: re.Pattern[str] | None = None
    """Calls of functions that make null of an instant that they cannot read. A comparison with null holds no row."""

    passed_over: str | None = None
    """The condition ``misread``, and an expires_at of which these functions make null."""

    readable: str | None = None
    """A condition: some window holds this expires_at."""

    def literals(self, token_ids: Collection[str], kind: pa.DataType) -> list[str | int]:
        """Canonical ids as this database compares them with a ``token_id`` of this type, so that an index is used.

        An id is left out only where no column of this type can hold it.
        """
        if self.untyped_literals:
            return list(token_ids)
        written = (int(token_id) for token_id in token_ids if _INTEGER.fullmatch(token_id))
        numbers = [number for number in written if number in self.integers]
        if pa.types.is_integer(kind):
            return list(numbers)
        return [*token_ids, *numbers] if self.untyped_columns else list(token_ids)
