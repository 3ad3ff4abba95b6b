"""Every database but Postgres, read through SQLAlchemy Core: rows in partitions, streamed where the driver can."""

from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
from sqlalchemy import URL, Connection, CursorResult, TextClause, bindparam, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from token_pipelines.config import Source as SourceConfig
from token_pipelines.source import sessions
from token_pipelines.source.columns import to_table, types_of, types_without_rows
from token_pipelines.source.deadline import Deadline
from token_pipelines.source.dialects import MYSQL, Dialect, dialect_of
from token_pipelines.source.engines import connected, make_engine
from token_pipelines.source.query import TOKEN_IDS, Statement
from token_pipelines.source.query_plans import reaches_in_rows
from token_pipelines.source.refusals import explained

PARTITION: Final = 20_000
"""Rows; some 15 MB as Python's objects."""

MARGIN: Final = timedelta(seconds=2)
"""How much longer than a database's own timeout we wait before we interrupt."""

_BEHIND: Final = ("Seconds_Behind_Source", "Seconds_Behind_Master")


class RowsReader:
    """Reads through SQLAlchemy, without a pool: no session's setting leaks into another."""

    def __init__(self, url: URL, key: str, config: SourceConfig) -> None:
        """Opens nothing. ``key`` names the URL in messages.

        Raises:
            ConfigError: if the driver is not installed, or is an asynchronous one, or does not take an option.
        """
        self.dialect: Dialect = dialect_of(url.get_backend_name())
        self._url = url
        self._key = key
        self._config = config
        target = sessions.url_with_driver(url)
        self._engine = make_engine(target, key, lambda: sessions.arguments(target, self.dialect, config))

    def schema(self, statement: Statement) -> pa.Schema:
        """See Reader."""
        with self._connection() as connection:
            result = connection.execute(*_bound(statement))
            types = types_without_rows(result.cursor, self.dialect)
            return to_table(list(result.keys()), types, []).schema

    def read(self, statement: Statement, deadline: Deadline) -> Generator[pa.Table]:
        """See Reader."""
        with self._connection() as connection:
            interrupt = sessions.interrupter(connection, self._engine, self.dialect)
            with deadline.watch(interrupt), self._statement_timeout().watch(interrupt):
                result = connection.execution_options(stream_results=True).execute(*_bound(statement))
                names, types = self._columns(result)  # before the rows: at their end the cursor is gone
                for rows in result.partitions(PARTITION):
                    yield to_table(names, types, rows)

    def reaches_tables(self, statement: Statement, token_ids: Collection[str]) -> bool | None:  # noqa: ARG002 -- as Reader says
        """See Reader."""
        clause, values = _bound(Statement(f"{self.dialect.explain} {statement.text}", statement.values))
        with self._connection() as connection:
            plan = [" ".join(map(str, row)) for row in connection.execute(clause, values)]
        return reaches_in_rows(plan, self.dialect)

    def lag(self) -> timedelta | None:
        """See Reader."""
        if self.dialect is not MYSQL:
            return None
        with self._connection() as connection:
            status = sessions.replica_status(connection)
        if status is None:
            return None
        seconds = next((status[name] for name in _BEHIND if name in status), None)
        return timedelta.max if seconds is None else timedelta(seconds=int(seconds))

    def _columns(self, result: CursorResult[Any]) -> tuple[list[str], list[pa.DataType | None]]:
        return list(result.keys()), types_of(result.cursor, self.dialect)

    def _statement_timeout(self) -> Deadline:
        """For databases that have none of their own; a little later than that of those that have."""
        cure = "raise source.statement_timeout, or add the index in docs/sources"
        return Deadline(self._config.statement_timeout + MARGIN, f"The database of {self._key} took too long; {cure}.")

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with connected(self._engine, self._url, self._key) as connection:
                for setting in sessions.settings(connection, self.dialect, self._config):
                    connection.exec_driver_sql(setting)
                try:
                    yield connection
                except BaseException:
                    # To close it in order would be to read what is left of a stream to its end.
                    connection.invalidate()
                    raise
        except SQLAlchemyError as error:
            cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
            raise explained(cause, self._url, self._key) from None


def _bound(statement: Statement) -> tuple[TextClause, dict[str, Any]]:
    """The statement and its values as every driver takes them: instants without a zone, since the session is in UTC."""
    clause = text(statement.text)
    if TOKEN_IDS in statement.values:
        clause = clause.bindparams(bindparam(TOKEN_IDS, expanding=True))
    return clause, {name: _naive(value) for name, value in statement.values.items()}


def _naive(value: object) -> object:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value
