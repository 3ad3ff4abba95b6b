"""psycopg connections to the ledger, for the two statements that run for every message.

For such small statements, SQLAlchemy takes more time than everything else together.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Engine

from token_pipelines.config import LEDGER_URL
from token_pipelines.database import DatabaseUrl, explain
from token_pipelines.errors import LedgerError


@contextmanager
def borrowed(engine: Engine) -> Iterator["psycopg.Connection[Any]"]:
    """Borrow a connection from the engine's pool.

    Raises:
        LedgerError: the ledger cannot be reached, or a statement fails.
    """
    with explained(engine):
        connection = engine.raw_connection()  # unlike Engine.connect, it raises the driver's own errors
    driver = connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 -- narrows the type
    try:
        with explained(engine):
            yield driver
    finally:
        if driver.closed:
            connection.invalidate()
        connection.close()


def opened(engine: Engine) -> "psycopg.Connection[Any]":
    """Open a connection with autocommit, outside the pool; the caller closes it.

    Raises:
        LedgerError: the ledger cannot be reached.
    """
    with explained(engine):
        connection = engine.raw_connection()
        driver = connection.driver_connection
        assert isinstance(driver, psycopg.Connection)  # noqa: S101 -- narrows the type
        connection.detach()
        driver.autocommit = True
    return driver


@contextmanager
def explained(engine: Engine) -> Iterator[None]:
    """Turn the driver's errors into messages for operators. A violated constraint is a bug of ours and passes."""
    try:
        yield
    except psycopg.IntegrityError:
        raise
    except psycopg.Error as error:
        raise LedgerError(explain(error, DatabaseUrl(engine.url, LEDGER_URL))) from None
