"""Reads Postgres through ADBC: columns come as Arrow's own, at close to the speed of a bare COPY."""

import json
import re
import threading
import weakref
from collections.abc import Collection, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any, Final

import adbc_driver_manager
import adbc_driver_postgresql
import pyarrow as pa
from adbc_driver_postgresql import dbapi
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from token_pipelines.config import Source as SourceConfig
from token_pipelines.database import DatabaseUrl
from token_pipelines.source.databases import postgres_session
from token_pipelines.source.databases.database import Database
from token_pipelines.source.deadline import Deadline
from token_pipelines.source.dialect import Dialect
from token_pipelines.source.query import Statement
from token_pipelines.source.session import Session

LAG: Final = """
SELECT CASE
    WHEN NOT pg_is_in_recovery() THEN NULL
    WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() AND EXISTS (SELECT pid FROM pg_stat_wal_receiver) THEN 0
    ELSE coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8, 'infinity')
END AS lag
"""
"""Seconds. While the primary is idle nothing is replayed, and the last transaction's age is no lag: a replica that
receives and has replayed all that it received is up to date. One that receives nothing may be days behind."""

EPOCH: Final = 946_684_800_000_000
"""Postgres counts from 2000; ADBC adds this many µs, and infinity wraps round to the past."""

INFINITIES: Final = (2**63 - 1 + EPOCH - 2**64, -(2**63) + EPOCH)
"""What ADBC makes of infinity and -infinity, in µs since 1970."""

NO_ENCODING: Final = "SQL_ASCII"
"""The encoding of a database that takes any octets for text."""

_CONDITIONS: Final = ("Index Cond", "Recheck Cond", "Filter", "Hash Cond", "Merge Cond", "Join Filter")
_ELSEWHERE: Final = "Foreign Scan"
"""What this asks of the other server is not shown in the plan."""


class PostgresReader:
    """Reads through ADBC. Values are written into the statement: binds of the driver's own run slower."""

    def __init__(self, database: Database, url: DatabaseUrl, config: SourceConfig) -> None:
        """Opens nothing."""
        self._database = database
        self._url = url
        self._session = Session.to_read(config)
        self._opened_database: Any = None
        self._opening = threading.Lock()

    @property
    def dialect(self) -> Dialect:
        """See Reader."""
        return self._database.dialect

    def schema(self, statement: Statement) -> pa.Schema:
        """See Reader."""
        with self._cursor() as cursor:
            cursor.execute(_written(statement))
            return _batches(cursor).schema

    def read(self, statement: Statement, deadline: Deadline) -> Generator[pa.Table]:
        """See Reader."""
        with self._cursor() as cursor, deadline.watch(cursor.adbc_cancel):
            cursor.execute(_written(statement))
            for batch in _batches(cursor):
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])

    def reaches_tables(self, statement: Statement, token_ids: Collection[str]) -> bool | None:
        """See Reader."""
        with self._cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})  # EXPLAIN cannot be copied out
            cursor.execute(f"EXPLAIN (FORMAT JSON) {_written(statement)}")
            plan = json.loads(cursor.fetchone()[0])[0]["Plan"]
        return any(_is_searched(node, token_ids) for node in _nodes(plan))

    def lag(self) -> timedelta | None:
        """See Reader."""
        with self._cursor() as cursor:
            cursor.execute(LAG)
            seconds = cursor.fetchone()[0]
        if seconds is None:
            return None
        return timedelta(seconds=min(seconds, timedelta.max.total_seconds() // 1))

    def conninfo(self, encoding: str | None = None) -> str:
        """The URL as libpq's keywords; in UTF-8, unless another encoding is asked for.

        Not as a URL of libpq's, which reads some characters otherwise than SQLAlchemy does: a + in a password, a blank.
        """
        parsed = self._url.parsed
        _, keywords = PGDialect_psycopg().create_connect_args(parsed)  # type: ignore[no-untyped-call]
        keywords |= self._database.connect_arguments(parsed, self._session)
        keywords |= {"client_encoding": encoding} if encoding else {}
        return " ".join(f"{name}={_quoted(value)}" for name, value in keywords.items())

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection of ADBC's."""
        database = self._opened()
        with closing(dbapi.Connection(_KeptOpen(), adbc_driver_manager.AdbcConnection(database))) as connection:
            yield connection

    def _opened(self) -> Any:  # noqa: ANN401 -- ADBC has no types
        """What ADBC knows of the database, read once: it asks for every type there is, 20 ms of processor time."""
        with self._opening:
            if self._opened_database is None:
                self._opened_database = self._of_its_encoding()
                weakref.finalize(self, self._opened_database.close)
            return self._opened_database

    def _of_its_encoding(self) -> Any:  # noqa: ANN401 -- ADBC has no types
        """The database, asked for UTF-8. One that knows no encoding is asked for octets as they are.

        Of such a one Postgres gives nothing at all where one text is no UTF-8.
        """
        database = adbc_driver_postgresql.connect(self.conninfo())
        connection = dbapi.Connection(_KeptOpen(), adbc_driver_manager.AdbcConnection(database))
        with closing(connection), closing(connection.cursor()) as cursor:
            cursor.execute("SELECT current_setting('server_encoding')")
            encoding = cursor.fetchone()[0]
        if encoding != NO_ENCODING:
            return database
        database.close()
        return adbc_driver_postgresql.connect(self.conninfo(NO_ENCODING))

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        try:
            with self.connection() as connection, closing(connection.cursor()) as cursor:
                for statement in postgres_session.statements(self._session):
                    cursor.execute(statement)
                    cursor.fetchall()
                yield cursor
        except (adbc_driver_manager.Error, OSError, pa.ArrowException) as error:
            raise self._database.explained(error, self._url) from None


class _KeptOpen:
    """Stands for the database where a connection of ADBC's would close it with itself: the reader keeps it."""

    def close(self) -> None:
        """Leave it open."""


def _quoted(value: object) -> str:
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _batches(cursor: Any) -> Any:  # noqa: ANN401 -- ADBC has no types
    """The rows of the cursor. Not by fetch_record_batch(), whose errors are a bare OSError without an SQLSTATE."""
    return cursor._results.reader  # noqa: SLF001 -- no public name gives these errors batch by batch


def _is_searched(node: dict[str, Any], token_ids: Collection[str]) -> bool:
    """Whether this node of a plan searches a table for these ids, not only a finished sub-select's rows."""
    if node["Node Type"] == _ELSEWHERE:
        return True
    said = " ".join(str(node[name]) for name in _CONDITIONS if name in node)
    return "Relation Name" in node and all(
        re.search(rf"(?<!\w){re.escape(token_id)}(?!\w)", said) for token_id in token_ids
    )


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def _written(statement: Statement) -> str:
    """The statement with its values in it: aware instants as timestamptz, naive ones as timestamp."""
    compiled = text(statement.text).compile(dialect=PGDialect_psycopg())  # type: ignore[no-untyped-call]
    return str(compiled) % {name: _literal(value) for name, value in statement.values.items()}


def _literal(value: object) -> str:
    if isinstance(value, list):  # ids, untyped: Postgres reads them in the column's own type
        return f"({', '.join(_plain(item) or sql.Literal(item).as_string() for item in value)})"
    return sql.Literal(value).as_string()


def _plain(item: object) -> str | None:
    """An id as a literal, where nothing in it needs the driver's care, which takes ten times as long."""
    return f"'{item}'" if isinstance(item, str) and item.isascii() and item.isalnum() else None
