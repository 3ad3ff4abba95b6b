"""The ledger's connections. Each one sets what the ledger relies on; nothing is left to the server or the environment.

Statements name the tables as `SCHEMA.table`; the engine puts the pipeline's own schema in its place. The search_path is
empty, so a statement without a schema fails, and none can reach another pipeline's tables.

Behind a pooler, the next transaction may be on another session of the server, and what was set is not there. Then the
settings are made in each transaction, and no statement is prepared.
"""

from functools import partial
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import ExceptionContext

from token_pipelines.database import DatabaseUrl, explain, set_settings
from token_pipelines.errors import LedgerError
from token_pipelines.ledger.tables import SCHEMA

CONNECT_TIMEOUT_S: Final = 10
APPLICATION_NAME: Final = "token-pipelines ledger"

SETTINGS: Final = {
    "search_path": "",
    "client_encoding": "UTF8",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "array_nulls": "on",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    # Planning relies on it: after it has waited for its lock, it must see what others have committed meanwhile.
    "default_transaction_isolation": "read committed",
    # A run waits for another one's planning for as long as that takes, and decides while its transaction is open.
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    "statement_timeout": "0",
    "transaction_timeout": "0",
}
"""What a role, a database, a pooler or a variable of libpq may have set in another way. default_transaction_read_only
is not among them: whoever sets it means it, and the ledger says that it cannot write."""

DURABLE: Final = """
SELECT set_config('synchronous_commit', 'on', {local}) WHERE current_setting('synchronous_commit') = 'off'
"""
"""A mark that a crash of the server loses is an email that is sent twice. The other levels all wait for the disk."""

_SCHEMA: Final = "ledger_schema"
"""The execution option that holds the schema."""

POOLED: Final = "pooled"
"""What a connection's ``info`` says of the pooler."""


def make_engine(url: DatabaseUrl, schema: str, connections: int) -> Engine:
    """An engine for the ledger in this schema. Opens nothing.

    Args:
        url: a Postgres with the driver psycopg.
        schema: the pipeline's.
        connections: how many connections the pool keeps.
    """
    engine = create_engine(
        url.parsed,
        hide_parameters=True,
        pool_size=connections,
        isolation_level="READ COMMITTED",
        use_native_hstore=False,  # it would ask for a type that the ledger has no use for
        execution_options={_SCHEMA: schema},
        connect_args={
            # Said when connecting, it counts whatever the URL and PGCLIENTENCODING say, and a pooler keeps it.
            "client_encoding": "UTF8",
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": APPLICATION_NAME,
        },
    )
    event.listen(engine, "connect", partial(_prepare, url), insert=True)  # before SQLAlchemy itself asks anything
    event.listen(engine, "begin", _prepare_transaction)
    event.listen(engine, "before_cursor_execute", _in_its_schema, retval=True)
    event.listen(engine, "handle_error", partial(_translate, url))
    return engine


def schema_of(owner: Engine | Connection) -> str:
    """The schema of the ledger that an engine or a connection is for."""
    return str(owner.get_execution_options().get(_SCHEMA, SCHEMA))


def in_schema(owner: Engine | Connection, statement: str) -> str:
    """A statement for the driver itself, with the pipeline's schema. SQLAlchemy's statements get it by themselves."""
    return statement.replace(f"{SCHEMA}.", f"{schema_of(owner)}.")


def settings(*, local: bool) -> str:
    """The statements that set everything, for the session or until the transaction ends."""
    return f"{set_settings(SETTINGS, local=local)}; {DURABLE.format(local=str(local).lower())}"


def is_pooled(driver: "psycopg.Connection[Any]") -> bool:
    """Whether a pooler is between us and the server: it gives its clients other keys than the server's own."""
    row = driver.execute("SELECT pg_backend_pid()").fetchone()
    return row is None or row[0] != driver.info.backend_pid


def _prepare(url: DatabaseUrl, driver: Any, record: Any) -> None:  # noqa: ANN401 -- SQLAlchemy's event
    try:
        driver.autocommit = True  # a rollback would undo what is set
        driver.prepare_threshold, threshold = None, driver.prepare_threshold
        record.info[POOLED] = is_pooled(driver)
        if not record.info[POOLED]:
            driver.execute(settings(local=False).encode())
            driver.prepare_threshold = threshold
        driver.autocommit = False
    except psycopg.Error as error:
        driver.close()
        raise LedgerError(explain(error, url)) from None


def _prepare_transaction(connection: Connection) -> None:
    if connection.info.get(POOLED):
        connection.exec_driver_sql(settings(local=True))


def _in_its_schema(
    connection: Connection,
    cursor: Any,  # noqa: ANN401, ARG001 -- SQLAlchemy's event
    statement: str,
    parameters: Any,  # noqa: ANN401 -- as above
    *_: object,
) -> tuple[str, Any]:
    return in_schema(connection, statement), parameters


def _translate(url: DatabaseUrl, context: ExceptionContext) -> None:
    error = context.original_exception
    if isinstance(error, psycopg.errors.UndefinedTable):
        msg = f"The {url.described} lacks the ledger's tables; run `token-pipelines run` once: it makes them."
        raise LedgerError(msg) from None
    if isinstance(error, psycopg.Error) and not isinstance(error, psycopg.IntegrityError):
        raise LedgerError(explain(error, url)) from None
