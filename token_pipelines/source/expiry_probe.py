"""Finds rows that the query can never return, because the database compares their expires_at as another type.

Postgres refuses to compare a number with an instant. SQLite does not: any number is below any text, 22.11.2026 is above
2026-11-22, and no error names the rows that never come. So the probe reads a row of that kind with binds that let every
row through. It also reads a row that looks right, and asks for it again in the window of its own expiry.

`source check` runs it when it has seen no row. A snapshot runs it first where `Dialect.probe_each_run` says so.
"""

from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, timedelta
from typing import Any, Final

import pyarrow as pa

from token_pipelines.errors import SourceContractError, SourceError
from token_pipelines.policy import Window
from token_pipelines.source import instants, query, row_errors
from token_pipelines.source.bounds import Bounds
from token_pipelines.source.contract import IDS, Contract
from token_pipelines.source.deadline import Deadline
from token_pipelines.source.reader import Reader

_COLUMNS: Final = [*IDS, "expires_at"]
_TRIES: Final = 2
"""The row may be changed between two statements."""


def probe_expiries(reader: Reader, written: str, contract: Contract, deadline: Deadline) -> None:
    """Look through ``reader`` for a row that the query, as it was ``written``, can never return.

    Raises:
        SourceContractError: if its expires_at is of the wrong type.
        SourceError: if its expires_at is no instant, or the query does not find the row by it.
    """
    _Probe(reader, written, contract, deadline).run()


class _Probe:
    def __init__(self, reader: Reader, written: str, contract: Contract, deadline: Deadline) -> None:
        self._reader = reader
        self._written = written
        self._contract = contract
        self._deadline = deadline

    def run(self) -> None:
        for lowest, highest in self._reader.dialect.widest:
            binds = {query.AFTER: lowest, query.BEFORE: highest}
            self._refuse_misread(binds)
            if self._refuse_unfound(binds):
                break
        self._refuse_passed_over()

    def _refuse_misread(self, binds: Mapping[str, Any]) -> None:
        row = self._first(binds, self._reader.dialect.misread)
        if row is not None:
            self._contract.check_types(row.schema)
            instants.to_utc(row, "expires_at", self._contract.zone, self._reader.dialect)

    def _refuse_passed_over(self) -> None:
        dialect = self._reader.dialect
        if dialect.calls is None or not dialect.calls.search(self._written):
            return
        lowest, highest = dialect.widest[0]
        row = self._first({query.AFTER: lowest, query.BEFORE: highest}, dialect.passed_over, keeps_odd_values=True)
        if row is None or self._is_returned(row):
            return
        self._contract.check_types(row.schema)
        instants.to_utc(row, "expires_at", self._contract.zone, dialect)
        _refuse_unfound(row)

    def _is_returned(self, row: pa.Table) -> bool:
        """Whether the query, with the database's own functions, returns the row in some window."""
        lowest, highest = self._reader.dialect.widest[-1]
        ids = {f"found_{name}": row[name][0].as_py() for name in IDS}
        where = " AND ".join(f"{name} = :found_{name}" for name in IDS)
        return self._first({query.AFTER: lowest, query.BEFORE: highest, **ids}, where) is not None

    def _refuse_unfound(self, binds: Mapping[str, Any]) -> bool:
        """Whether there was a row to look for."""
        for left in reversed(range(_TRIES)):
            row = self._first(binds, self._reader.dialect.readable)
            window = None if row is None else self._window(row)
            if row is None or window is None:
                return False
            if self._first(self._bounds(window).values, "1 = 1") is not None:
                return True
            if not left:
                _refuse_unfound(row)
        return True

    def _window(self, row: pa.Table) -> Window | None:
        """The shortest window that holds the row; None for a value that is no instant, which the snapshot refuses."""
        try:
            expiry = instants.to_utc(row, "expires_at", self._contract.zone, self._reader.dialect)[0].as_py()
        except SourceError:
            return None
        return Window(expires_after=expiry.astimezone(UTC), expires_before=expiry + timedelta(seconds=1))

    def _bounds(self, window: Window) -> Bounds:
        kind = self._contract.schema.field("expires_at").type
        return Bounds.of(window, self._reader.dialect, kind, self._contract.zone)

    def _first(self, binds: Mapping[str, Any], where: str | None, *, keeps_odd_values: bool = False) -> pa.Table | None:
        """A row; None where there is none, or where the query cannot take such binds, which is no fault."""
        if where is None:
            return None
        statement = query.first(self._written, _COLUMNS, binds, where, keeps_odd_values=keeps_odd_values)
        try:
            with closing(self._reader.read(statement, self._deadline)) as batches:
                return next((rows.slice(0, 1) for rows in batches if rows.num_rows), None)
        except (SourceContractError, SourceError):
            return None


def _refuse_unfound(row: pa.Table) -> None:
    binds = f":{query.AFTER} and :{query.BEFORE}"
    cure = f"compare the very expression that it returns with {binds}, not the column as it is kept"
    fault = "The source query does not find a token by the expires_at that it returns for it {row}"
    row_errors.refuse(row, pa.chunked_array([[True]]), fault, cure)
