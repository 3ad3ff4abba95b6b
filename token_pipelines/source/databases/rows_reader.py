"""Reads rows through SQLAlchemy Core, in partitions, streamed where the driver can. For every database but Postgres."""

from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow as pa
from sqlalchemy import Connection, TextClause, bindparam, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from token_pipelines.config import Source as SourceConfig
from token_pipelines.database import DatabaseUrl
from token_pipelines.source import columns
from token_pipelines.source.databases.database import Database
from token_pipelines.source.deadline import Deadline
from token_pipelines.source.dialect import Dialect
from token_pipelines.source.engines import connected, make_engine
from token_pipelines.source.query import TOKEN_IDS, Statement
from token_pipelines.source.session import Session

PARTITION: Final = 20_000
"""Rows; some 15 MB as Python's objects."""

MARGIN: Final = timedelta(seconds=2)
"""How much longer than a database's own timeout we wait before we interrupt."""


class RowsReader:
    """Reads without a pool: no session's setting leaks into another."""

    def __init__(self, database: Database, url: DatabaseUrl, config: SourceConfig) -> None:
        """Opens nothing.

        Raises:
            ConfigError: if the driver is not installed, or is an asynchronous one, or does not take an option.
        """
        self._database = database
        self._url = url
        self._statement_timeout = config.statement_timeout
        self._session = Session.to_read(config)
        self._engine = make_engine(
            url.with_parsed(database.engine_url(url.parsed, read_only=True)), database, self._session
        )

    @property
    def dialect(self) -> Dialect:
        """See Reader."""
        return self._database.dialect

    def schema(self, statement: Statement) -> pa.Schema:
        """See Reader."""
        with self._connection() as connection:
            result = connection.execute(*_bound(statement))
            types = self._database.column_types(result.cursor, has_rows=False)
            return columns.table(list(result.keys()), types, [], self._database.array).schema

    def read(self, statement: Statement, deadline: Deadline) -> Generator[pa.Table]:
        """See Reader."""
        with self._connection() as connection:
            if statement.keeps_odd_values:
                self._database.keep_odd_values(connection)
            interrupt = self._database.interrupter(connection, self._engine)
            with deadline.watch(interrupt), self._timeout().watch(interrupt):
                result = connection.execution_options(stream_results=True).execute(*_bound(statement))
                names = list(result.keys())
                # Before the rows: at their end the cursor is gone.
                types = self._database.column_types(result.cursor, has_rows=True)
                for rows in result.partitions(PARTITION):
                    yield columns.table(names, types, rows, self._database.array)

    def reaches_tables(self, statement: Statement, token_ids: Collection[str]) -> bool | None:
        """See Reader."""
        clause, values = _bound(Statement(f"{self.dialect.explain} {statement.text}", statement.values))
        with self._connection() as connection:
            plan = [" ".join(map(str, row)) for row in connection.execute(clause, values)]
        return self._database.reaches_tables(plan, token_ids)

    def lag(self) -> timedelta | None:
        """See Reader."""
        with self._connection() as connection:
            return self._database.lag(connection)

    def _timeout(self) -> Deadline:
        """For databases that have no statement timeout; a little later than that of those that have one."""
        cure = "raise source.statement_timeout, or add the index in docs/sources"
        return Deadline(self._statement_timeout + MARGIN, f"The database of {self._url.key} took too long; {cure}.")

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with connected(self._engine, self._url) as connection:
                for setting in self._database.settings(connection, self._session):
                    connection.exec_driver_sql(setting)
                try:
                    yield connection
                except BaseException:
                    # To close it in order would be to read what is left of a stream to its end.
                    connection.invalidate()
                    raise
        except SQLAlchemyError as error:
            cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
            raise self._database.explained(cause, self._url) from None


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
