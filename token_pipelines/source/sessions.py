"""What a session of each database but Postgres needs: a driver, UTC, read-only, limits, a way to be interrupted.

Of the limits only those that a database has can be set; what other dialects than these have is left as it is.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError

from token_pipelines.config import Source as SourceConfig
from token_pipelines.source.dialects import MYSQL, SQLITE, Dialect

CONNECT_TIMEOUT_S: Final = 10

_DRIVERS: Final = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql"}
"""Which driver a URL without one means, where it is not SQLAlchemy's own choice."""

_REPLICA_STATUS: Final = ("SHOW REPLICA STATUS", "SHOW SLAVE STATUS")  # MySQL 8.0.22, MariaDB 10.5; and before
_SYNTAX_ERROR: Final = 1064


def url_with_driver(url: URL) -> URL:
    """The URL to connect with. A SQLite file is opened read-only."""
    if url.get_backend_name() != "sqlite":
        return url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
    file = (url.database or "").removeprefix("file:").partition("?")[0]
    return url.set(database=f"file:{quote(file)}").update_query_dict({"mode": "ro", "uri": "true"})


def arguments(url: URL, dialect: Dialect, config: SourceConfig) -> dict[str, Any]:
    """What the driver's ``connect`` is given."""
    if dialect is SQLITE:
        return {"timeout": config.lock_timeout.total_seconds()}
    if url.get_driver_name() == "pymysql":
        return {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": config.deadline.total_seconds()}
    return {}


def settings(connection: Connection, dialect: Dialect, config: SourceConfig) -> list[str]:
    """Statements that make a new session read-only, in UTC, and give it its limits."""
    if dialect is SQLITE:
        return ["PRAGMA query_only = ON"]
    if dialect is not MYSQL:
        return []
    statement, lock = config.statement_timeout.total_seconds(), max(1, round(config.lock_timeout.total_seconds()))
    is_mariadb = getattr(connection.dialect, "is_mariadb", False)
    limit = f"max_statement_time = {statement}" if is_mariadb else f"max_execution_time = {round(statement * 1000)}"
    return [
        "SET SESSION time_zone = '+00:00'",  # TIMESTAMP columns are shown in it
        "SET SESSION TRANSACTION READ ONLY",
        f"SET SESSION {limit}",
        f"SET SESSION lock_wait_timeout = {lock}",
        f"SET SESSION innodb_lock_wait_timeout = {lock}",
    ]


def interrupter(connection: Connection, engine: Engine, dialect: Dialect) -> Callable[[], None]:
    """A function that ends the statement which runs on this connection, to be called from another thread."""
    driver = connection.connection.driver_connection
    if dialect is MYSQL:
        session = connection.exec_driver_sql("SELECT connection_id()").scalar_one()

        def kill() -> None:
            with engine.connect() as other:
                other.exec_driver_sql(f"KILL QUERY {int(session)}")

        return kill
    interrupt = getattr(driver, "interrupt", None) or getattr(driver, "cancel", None)
    return interrupt if callable(interrupt) else _leave_running


def _leave_running() -> None:
    """For a driver that cannot be interrupted: the deadline then counts between two partitions."""


def replica_status(connection: Connection) -> Mapping[str, Any] | None:
    """What MariaDB or MySQL says of its replication; None where it is no replica.

    Raises:
        DBAPIError: if it is not permitted to ask.
    """
    for question in _REPLICA_STATUS:
        try:
            status = connection.exec_driver_sql(question).mappings().first()
            return None if status is None else dict(status)
        except DBAPIError as error:
            if getattr(error.orig, "args", (0,))[0] != _SYNTAX_ERROR or question == _REPLICA_STATUS[-1]:
                raise
    return None
