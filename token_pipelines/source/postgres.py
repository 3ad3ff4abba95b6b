"""Postgres, read through ADBC: columns come as Arrow's own, at close to the speed of a bare COPY."""

import json
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
from sqlalchemy import URL, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from token_pipelines.config import Source as SourceConfig
from token_pipelines.source.deadline import Deadline
from token_pipelines.source.dialects import POSTGRES, Dialect
from token_pipelines.source.query import Statement
from token_pipelines.source.query_plans import reaches_in_postgres
from token_pipelines.source.refusals import explained

APPLICATION_NAME: Final = "token-pipelines source"
CONNECT_TIMEOUT_S: Final = 10
KEEPALIVES: Final = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
"""A server that has vanished is noticed within a minute; the kernel's own default is two hours."""

LAG: Final = """
SELECT CASE
    WHEN NOT pg_is_in_recovery() THEN NULL
    WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn() AND EXISTS (SELECT pid FROM pg_stat_wal_receiver) THEN 0
    ELSE coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp())::float8, 'infinity')
END AS lag
"""
"""Seconds. While the primary is idle nothing is replayed, and the last transaction's age is no lag: a replica that
receives and has replayed all that it received is up to date. One that receives nothing may be days behind."""


class PostgresReader:
    """Reads through ADBC. Values are written into the statement: binds of the driver's own run slower."""

    dialect: Dialect = POSTGRES

    def __init__(self, url: URL, key: str, config: SourceConfig) -> None:
        """Opens nothing. ``key`` names the URL in messages."""
        self._url = url
        self._key = key
        self._config = config
        self._database: Any = None
        self._opening = threading.Lock()

    def schema(self, statement: Statement) -> pa.Schema:
        """See Reader."""
        with self._cursor() as cursor:
            cursor.execute(_written(statement))
            return cursor.fetch_record_batch().schema

    def read(self, statement: Statement, deadline: Deadline) -> Generator[pa.Table]:
        """See Reader."""
        with self._cursor() as cursor, deadline.watch(cursor.adbc_cancel):
            cursor.execute(_written(statement))
            for batch in cursor.fetch_record_batch():
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])

    def reaches_tables(self, statement: Statement, token_ids: Collection[str]) -> bool | None:
        """See Reader."""
        with self._cursor() as cursor:
            cursor.adbc_statement.set_options(**{"adbc.postgresql.use_copy": "false"})  # EXPLAIN cannot be copied out
            cursor.execute(f"EXPLAIN (FORMAT JSON) {_written(statement)}")
            return reaches_in_postgres(json.loads(cursor.fetchone()[0])[0]["Plan"], token_ids)

    def lag(self) -> timedelta | None:
        """See Reader."""
        with self._cursor() as cursor:
            cursor.execute(LAG)
            seconds = cursor.fetchone()[0]
        if seconds is None:
            return None
        return timedelta(seconds=min(seconds, timedelta.max.total_seconds() // 1))

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection of ADBC's."""
        database = self._opened()
        with closing(dbapi.Connection(_Lasting(), adbc_driver_manager.AdbcConnection(database))) as connection:
            yield connection

    def _opened(self) -> Any:  # noqa: ANN401 -- ADBC has no types
        """What ADBC knows of the database, read once: it asks for every type there is, 20 ms of processor time."""
        with self._opening:
            if self._database is None:
                self._database = adbc_driver_postgresql.connect(self.uri())
                weakref.finalize(self, self._database.close)
            return self._database

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        try:
            with self.connection() as connection, closing(connection.cursor()) as cursor:
                yield cursor
        except (adbc_driver_manager.Error, OSError, pa.ArrowException) as error:  # the last two while rows are fetched
            raise explained(error, self._url, self._key) from None

    def uri(self) -> str:
        """The URL as libpq reads it, with the session's settings."""
        limits = {
            "TimeZone": "UTC",
            "default_transaction_read_only": "on",
            "statement_timeout": int(self._config.statement_timeout.total_seconds() * 1000),
            "lock_timeout": int(self._config.lock_timeout.total_seconds() * 1000),
        }
        options = " ".join(f"-c {name}={value}" for name, value in limits.items())
        url = self._url.update_query_dict(
            {
                "application_name": APPLICATION_NAME,
                "connect_timeout": str(CONNECT_TIMEOUT_S),
                "options": f"{self._url.query.get('options', '')} {options}".strip(),
                **KEEPALIVES,
            }
        )
        # libpq reads a + in a query string as a plus sign.
        return url.render_as_string(hide_password=False).replace("+", "%20")


class _Lasting:
    """Stands for the database where a connection of ADBC's would close it with itself: the reader keeps it."""

    def close(self) -> None:
        """Leave it open."""


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
