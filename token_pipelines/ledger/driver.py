"""psycopg's own connections to the ledger, for the two statements that run for every message.

SQLAlchemy's share of so small a statement is larger than all the rest of it.
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
    """A connection of the engine's pool.

    Raises:
        LedgerError: the ledger cannot be reached, or refuses.
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
    """A connection that is the caller's, with autocommit; the caller closes it.

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
    """Turn the driver's errors into sentences for an operator. A broken constraint is a fault of ours and stays."""
    try:
        yield
    except psycopg.IntegrityError:
        raise
    except psycopg.Error as error:
        raise LedgerError(explain(error, DatabaseUrl(engine.url, LEDGER_URL))) from None
