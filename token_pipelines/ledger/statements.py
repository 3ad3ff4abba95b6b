"""What the ledger is told once a message: one statement, committed at once. What it says is ``sending``'s business.

On libpq itself, through psycopg's wrapper, and on connections of the engine's pool that are kept for the run: of so
small a statement the drivers' own share (check-out, adaptation, results) was 300 microseconds of SQLAlchemy's and 70 of
psycopg's a message, and is 20.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

import psycopg
from psycopg import pq
from sqlalchemy import Engine, PoolProxiedConnection

from token_pipelines.database import explain
from token_pipelines.errors import LedgerError

KEY: Final = "ledger.url"

Value = str | int | bytes | datetime | None

_PARAMETER: Final = re.compile(r"(?<!:):(\w+)")
_GOOD: Final = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)


@dataclass(frozen=True)
class Statement:
    """A statement that returns one number, as libpq takes it: ``$1``, ``$2``, … in the order of ``parameters``."""

    name: bytes
    text: bytes
    parameters: tuple[str, ...]

    @classmethod
    def named(cls, name: str, text: str) -> Self:
        """From a text whose parameters are written ``:name``."""
        parameters = tuple(dict.fromkeys(_PARAMETER.findall(text)))
        numbered = _PARAMETER.sub(lambda found: f"${parameters.index(found[1]) + 1}", text)
        return cls(name.encode(), numbered.encode(), parameters)


@dataclass(frozen=True)
class _Line:
    """A connection that is out of the pool, and the statements that it has prepared."""

    connection: PoolProxiedConnection
    libpq: pq.abc.PGconn
    prepared: set[bytes]


class Marks:
    """Runs statements from any thread, each on a connection that is free."""

    def __init__(self, engine: Engine, *, durable: bool) -> None:
        """With ``durable`` every commit waits for the disk."""
        self._engine = engine
        self._durable = durable
        self._free: list[_Line] = []

    def count(self, statement: Statement, values: Mapping[str, Value]) -> int:
        """Run a statement; the number that it returns.

        Raises:
            LedgerError: the ledger cannot be reached, or refuses.
        """
        line = self._take()
        try:
            if statement.name not in line.prepared:
                _checked(line.libpq.prepare(statement.name, statement.text))
                line.prepared.add(statement.name)
            encoded = [_encoded(values[name]) for name in statement.parameters]
            # The stubs leave out that None is a null.
            result = _checked(line.libpq.exec_prepared(statement.name, encoded))  # type: ignore[arg-type]
            number = int(result.get_value(0, 0) or 0)
        except BaseException as error:
            line.connection.invalidate()
            if isinstance(error, psycopg.Error) and not isinstance(error, psycopg.IntegrityError):
                raise self._explained(error) from None
            raise
        self._free.append(line)  # a list is safe between threads, one operation at a time
        return number

    def close(self) -> None:
        """Close what was kept: its settings must not reach who comes next."""
        while self._free:
            self._free.pop().connection.invalidate()

    def _take(self) -> _Line:
        try:
            return self._free.pop()
        except IndexError:
            pass
        try:
            connection = self._engine.raw_connection()  # unlike Engine.connect, it raises the driver's own errors
        except psycopg.Error as error:
            raise self._explained(error) from None
        driver = connection.driver_connection
        assert isinstance(driver, psycopg.Connection)  # noqa: S101 -- narrows the type
        try:
            driver.autocommit = True
            if not self._durable:
                driver.execute("SET synchronous_commit = off")
        except psycopg.Error as error:
            connection.invalidate()
            raise self._explained(error) from None
        return _Line(connection, driver.pgconn, set())

    def _explained(self, error: psycopg.Error) -> LedgerError:
        return LedgerError(explain(error, self._engine.url, KEY))


def _encoded(value: Value) -> bytes | None:
    """A value in Postgres' own text form."""
    match value:
        case None:
            return None
        case bytes():
            return b"\\x" + value.hex().encode()
        case datetime():
            return value.isoformat().encode()
        case _:
            return str(value).encode()


def _checked(result: pq.abc.PGresult) -> pq.abc.PGresult:
    if result.status not in _GOOD:
        raise psycopg.errors.error_from_result(result)
    return result
