"""Every database but Postgres, read through SQLAlchemy Core: rows in partitions, streamed where the driver can."""

import re
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
from sqlalchemy import URL, Connection, CursorResult, NullPool, TextClause, bindparam, create_engine, text
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from token_pipelines.config import Source as SourceConfig
from token_pipelines.database import explain, may_pass, unreachable
from token_pipelines.errors import ConfigError, SourceContractError, SourceError
from token_pipelines.source import sessions
from token_pipelines.source.columns import to_table, types_of
from token_pipelines.source.deadline import Deadline
from token_pipelines.source.dialects import MYSQL, SQLITE, Dialect, dialect_of
from token_pipelines.source.plans import reaches_in_rows
from token_pipelines.source.query import TOKEN_IDS, Statement

PARTITION: Final = 20_000
"""Rows; some 15 MB as Python's objects."""

MARGIN: Final = timedelta(seconds=2)
"""How much longer than a database's own timeout we wait before we interrupt."""

_SQLITE_BLAMES: Final = re.compile(r"no such (column|table|function)|syntax error|ambiguous column|wrong number of arg")
_MYSQL_BLAMES: Final = {1051, 1052, 1054, 1055, 1060, 1064, 1109, 1140, 1146, 1222, 1248, 1305, 1582, 1630}
"""Errors that blame the statement: what is not known, not unique or not in its place. They name identifiers only."""

_QUOTED_QUERY: Final = re.compile(r"near '.*' at line", re.DOTALL)
"""MySQL repeats the rest of the statement there."""

_BEHIND: Final = ("Seconds_Behind_Source", "Seconds_Behind_Master")


class RowsReader:
    """Reads through SQLAlchemy, without a pool: no session's setting leaks into another."""

    def __init__(self, url: URL, key: str, config: SourceConfig, folder: Path) -> None:
        """Opens nothing. ``key`` names the URL in messages; a SQLite file's path is relative to ``folder``.

        Raises:
            ConfigError: if the driver is not installed, or is an asynchronous one.
        """
        self.dialect: Dialect = dialect_of(url.get_backend_name())
        self._url = url
        self._key = key
        self._config = config
        target = sessions.url_with_driver(url, folder)
        try:
            arguments = sessions.arguments(target, self.dialect, config)
            self._engine = create_engine(target, poolclass=NullPool, hide_parameters=True, connect_args=arguments)
        except (ModuleNotFoundError, NoSuchModuleError):
            extra = "token-pipelines[mysql]" if self.dialect is MYSQL else "the package that SQLAlchemy names for it"
            msg = f"{key} is a {target.drivername} database, whose driver is not installed; install {extra}."
            raise ConfigError(msg) from None
        if self._engine.dialect.is_async:
            msg = f"{key} names the asynchronous driver {target.get_driver_name()}; name a synchronous one."
            raise ConfigError(msg)

    def schema(self, statement: Statement) -> pa.Schema:
        """See Reader."""
        with self._connection() as connection:
            result = connection.execute(*_bound(statement))
            return to_table(*self._columns(result), []).schema

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
            with self._engine.connect() as connection:
                for setting in sessions.settings(connection, self.dialect, self._config):
                    connection.exec_driver_sql(setting)
                try:
                    yield connection
                except BaseException:
                    # To close it in order would be to read what is left of a stream to its end.
                    connection.invalidate()
                    raise
        except SQLAlchemyError as error:
            raise self._explained(error) from None

    def _explained(self, error: SQLAlchemyError) -> SourceError | SourceContractError:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        blame = _blame(cause, self.dialect)
        if blame is not None:
            msg = f"The source query is not accepted by the database: {blame}; mend source.query."
            return SourceContractError(msg)
        said = explain(cause, self._url, self._key)
        return SourceError(said, may_pass=may_pass(cause), unreachable=unreachable(cause))


def _blame(cause: BaseException, dialect: Dialect) -> str | None:
    """What the database says against the statement, if it does."""
    if dialect is SQLITE and _SQLITE_BLAMES.search(str(cause)):
        return str(cause)
    if dialect is MYSQL and cause.args and cause.args[0] in _MYSQL_BLAMES:
        return _QUOTED_QUERY.sub("at line", str(cause.args[1])).strip()
    return None


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
