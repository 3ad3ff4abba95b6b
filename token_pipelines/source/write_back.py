"""Tells the operator's database which tokens were written about: `source.on_sent`, one statement of the operator's.

On a connection of its own for each batch, which may write; in UTC, with the source's timeouts. Whatever becomes of it,
the ledger is not this module's concern.
"""

import os
import socket
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
from sqlalchemy import URL, Connection, DateTime, Engine, NullPool, TextClause, bindparam, create_engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.types import NullType

from token_pipelines.config import Source as SourceConfig
from token_pipelines.database import POSTGRES, PSYCOPG, explain, parse, place
from token_pipelines.errors import ConfigError, SourceContractError, SourceError
from token_pipelines.source.deadline import Deadline
from token_pipelines.source.postgres import KEEPALIVES
from token_pipelines.source.rows import MARGIN

KEY: Final = "source.on_sent"
APPLICATION_NAME: Final = "token-pipelines write-back"
CONNECT_TIMEOUT_S: Final = 10

TOKEN_IDS: Final = "token_ids"  # noqa: S105 -- a bind's name
SENT_AT: Final = "sent_at"
FILE: Final = ".sql"

_QUOTES_VALUES: Final = ("22", "23", "P0")
"""Classes of SQLSTATE whose messages may repeat a value: of data, of constraints, of a trigger's own words."""

_MYSQL_NAMES: Final = {1054, 1142, 1143, 1146, 1205, 1290, 1792}
"""Errors of MariaDB and MySQL that name columns, tables, rights and locks, and no value."""

_SQLITE: Final = "sqlite"
_MYSQL: Final = ("mysql", "mariadb")


class WriteBack:
    """The statement, ready to be run."""

    def __init__(self, config: SourceConfig, folder: Path) -> None:
        """Take ``config.on_sent``: SQL, or the path of a .sql file, relative to ``folder``. Opens nothing.

        Raises:
            ConfigError: if the file, the URL or its driver is wrong.
            SourceContractError: if the statement does not ask for the tokens, or asks for other binds.
        """
        self._key = "source.url" if config.on_sent_url is None else "source.on_sent_url"
        self._url = _url((config.on_sent_url or config.url).get_secret_value(), self._key, folder)
        self._config = config
        self._statement = _statement(load(config.on_sent or "", folder), self._url)
        self._engine = self._make_engine()
        self.fault = ""
        """What it failed with when it was last run; kept by whoever runs it, who says it once."""

    def run(self, token_ids: Collection[str | int], sent_at: datetime) -> None:
        """Run the statement for these tokens, ids as `Source.literals` gives them, in one transaction.

        Raises:
            SourceError: if the database refuses, or is ``unreachable``. Nothing was changed then; where the connection
                was lost at the commit, perhaps everything.
        """
        at = sent_at.astimezone(UTC)
        with self._explained(), self._engine.connect() as connection, self._deadline(connection):
            self._begin_session(connection)
            values = {TOKEN_IDS: list(token_ids), SENT_AT: at if self._is_postgres else at.replace(tzinfo=None)}
            asked = {name: values[name] for name in _binds(self._statement)}
            connection.execute(self._statement, asked)
            connection.commit()

    @property
    def _is_postgres(self) -> bool:
        return self._url.get_backend_name() == POSTGRES

    def _make_engine(self) -> Engine:
        try:
            engine = create_engine(self._url, poolclass=NullPool, hide_parameters=True, connect_args=self._arguments())
        except (ModuleNotFoundError, NoSuchModuleError):
            msg = f"{self._key} is a {self._url.drivername} database, whose driver is not installed; install it."
            raise ConfigError(msg) from None
        if engine.dialect.is_async:
            msg = f"{self._key} names the asynchronous driver {self._url.get_driver_name()}; name a synchronous one."
            raise ConfigError(msg)
        return engine

    def _arguments(self) -> dict[str, Any]:
        statement, lock = (
            timeout.total_seconds() for timeout in (self._config.statement_timeout, self._config.lock_timeout)
        )
        if self._is_postgres:
            limits = {"TimeZone": "UTC", "statement_timeout": int(statement * 1000), "lock_timeout": int(lock * 1000)}
            options = " ".join(f"-c {name}={value}" for name, value in limits.items())
            ours = f"{self._url.query.get('options', '')} {options}".strip()
            session = {"options": ours, "application_name": APPLICATION_NAME}
            return session | {"connect_timeout": CONNECT_TIMEOUT_S} | KEEPALIVES
        if self._url.get_driver_name() == "pymysql":
            return {"connect_timeout": CONNECT_TIMEOUT_S, "read_timeout": statement}
        return {"timeout": lock} if self._url.get_backend_name() == _SQLITE else {}

    def _begin_session(self, connection: Connection) -> None:
        if self._url.get_backend_name() in _MYSQL:
            lock = max(1, round(self._config.lock_timeout.total_seconds()))
            connection.exec_driver_sql(
                f"SET SESSION time_zone = '+00:00', lock_wait_timeout = {lock}, innodb_lock_wait_timeout = {lock}"
            )

    @contextmanager
    def _deadline(self, connection: Connection) -> Iterator[None]:
        """Hang up on a Postgres that keeps no timeout of its own, since it is stopped or out of reach."""
        if not self._is_postgres:
            yield
            return
        silent = f"The database of {self._key} ({place(self._url)}) did not answer in time; look whether it is well."
        deadline = Deadline(self._config.statement_timeout + MARGIN, silent)
        line = os.dup(connection.connection.fileno())  # our own, which stays the same when the driver closes its one
        try:
            with socket.socket(fileno=line) as same, deadline.watch(lambda: same.shutdown(socket.SHUT_RDWR)):
                yield
        except SourceError as error:
            raise SourceError(str(error), unreachable=True) from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            cause = error.orig or error
            never_made = error.statement is None and isinstance(error, OperationalError | InterfaceError)
            if error.connection_invalidated or never_made:
                raise SourceError(explain(cause, self._url, self._key), unreachable=True) from None
            where = f"the database of {self._key} ({place(self._url)})"
            msg = f"{KEY} failed in {where}: {_said(cause)}; mend the statement, or the rights of the account."
            raise SourceError(msg) from None


def load(on_sent: str, folder: Path) -> str:
    """The statement: as it is given, or from the .sql file at a path relative to ``folder``.

    Raises:
        ConfigError: if there is no such file.
    """
    if not on_sent.endswith(FILE):
        return on_sent.strip().rstrip(";").rstrip()
    path = folder / on_sent
    try:
        return path.read_text(encoding="utf-8").strip().rstrip(";").rstrip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{KEY}: {path} cannot be read ({type(error).__name__}); check the path and its permissions."
        raise ConfigError(msg) from None


def _statement(written: str, url: URL) -> TextClause:
    binds = _binds(text(written))
    if TOKEN_IDS not in binds:
        msg = f"{KEY} does not use :{TOKEN_IDS}; name the tokens with WHERE id IN :{TOKEN_IDS}."
        raise SourceContractError(msg)
    unknown = binds - {TOKEN_IDS, SENT_AT}
    if unknown:
        msg = f"{KEY} asks for :{min(unknown)}; the only binds are :{TOKEN_IDS} and :{SENT_AT} (write \\: for a colon)."
        raise SourceContractError(msg)
    # Without a type: Postgres then reads each id in the type of the column that it is compared with.
    statement = text(written).bindparams(bindparam(TOKEN_IDS, expanding=True, type_=NullType()))
    if SENT_AT in binds:
        kind = DateTime(timezone=url.get_backend_name() == POSTGRES)
        statement = statement.bindparams(bindparam(SENT_AT, type_=kind))
    return statement


def _binds(statement: TextClause) -> set[str]:
    return set(statement.compile().params)


def _url(url: str, key: str, folder: Path) -> URL:
    parsed = parse(url, key)
    if parsed.get_backend_name() == POSTGRES:
        return parsed.set(drivername=PSYCOPG)
    if parsed.get_backend_name() == _SQLITE and parsed.database:
        file = parsed.database.removeprefix("file:").partition("?")[0]
        # Without the mode, a wrong path would make an empty database.
        existing = {"mode": "rw", "uri": "true"}
        return parsed.set(database=f"file:{quote(str(folder / file))}").update_query_dict(existing)
    return parsed.set(drivername=f"{parsed.drivername}+pymysql") if parsed.drivername in _MYSQL else parsed


def _said(cause: BaseException) -> str:
    """What the database says, where that repeats no value; else only which kind of error it is."""
    name = type(cause).__name__
    if isinstance(cause, psycopg.Error):
        sqlstate = cause.sqlstate or ""
        primary = None if sqlstate[:2] in _QUOTES_VALUES else cause.diag.message_primary
        return primary or f"{name} {sqlstate}".strip()
    if isinstance(cause, sqlite3.OperationalError):  # of names and locks; values are another class's matter
        return str(cause)
    code = cause.args[0] if cause.args and isinstance(cause.args[0], int) else ""
    return str(cause.args[1]) if code in _MYSQL_NAMES else f"{name} {code}".strip()
