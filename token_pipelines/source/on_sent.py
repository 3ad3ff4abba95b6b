"""Tells the operator's database which tokens were written about: `source.on_sent`, one statement of the operator's.

On a connection of its own for each batch, which may write; in UTC, with the source's timeouts. Whatever becomes of it,
the ledger is not this module's concern.
"""

import os
import re
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection, DateTime, TextClause, bindparam, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.types import NullType

from token_pipelines.config import SQL_FILE
from token_pipelines.config import Source as SourceConfig
from token_pipelines.database import POSTGRES, PSYCOPG, explain, is_option, parse, place
from token_pipelines.errors import ConfigError, SourceContractError, SourceError
from token_pipelines.source import sql_text
from token_pipelines.source.deadline import Deadline
from token_pipelines.source.dialects import dialect_of
from token_pipelines.source.engines import connected, make_engine
from token_pipelines.source.postgres import KEEPALIVES
from token_pipelines.source.refusals import safe_words
from token_pipelines.source.rows import MARGIN

KEY: Final = "source.on_sent"
APPLICATION_NAME: Final = "token-pipelines write-back"
CONNECT_TIMEOUT_S: Final = 10

TOKEN_IDS: Final = "token_ids"  # noqa: S105 -- a bind's name
SENT_AT: Final = "sent_at"

_IDS: Final = re.compile(rf":{TOKEN_IDS}\b")
_IN_IDS: Final = re.compile(rf"\bin\s*:{TOKEN_IDS}\b", re.IGNORECASE)
_IN_PARENTHESES: Final = re.compile(rf"\b(in)\s*\(\s*:{TOKEN_IDS}\s*\)", re.IGNORECASE)
_CAST_IDS: Final = re.compile(rf":{TOKEN_IDS}\s*::")
"""The ids become a list in parentheses: they can stand behind IN, and nowhere else."""

_SQLITE: Final = "sqlite"
_MYSQL: Final = ("mysql", "mariadb")


class OnSentStatement:
    """The statement, ready to be run."""

    def __init__(self, config: SourceConfig) -> None:
        """Take ``config.on_sent``: SQL, or the path of a .sql file. Opens nothing.

        Raises:
            ConfigError: if the file, the URL or its driver is wrong.
            SourceContractError: if the statement does not ask for the tokens, or asks for other binds.
        """
        self._key = "source.url" if config.on_sent_url is None else "source.on_sent_url"
        self._url = _url((config.on_sent_url or config.url).get_secret_value(), self._key)
        self._config = config
        self._statement, self._binds = _statement(load(config.on_sent or ""), self._url)
        self._engine = make_engine(self._url, self._key, self._arguments)
        self.fault = ""
        """What it failed with when it was last run; kept by whoever runs it, who says it once."""

    def run(self, token_ids: Collection[str | int], sent_at: datetime) -> None:
        """Run the statement for these tokens, ids as `Source.literals` gives them, in one transaction.

        Raises:
            SourceError: if the database refuses, or is ``unreachable``. Nothing was changed then; where the connection
                was lost at the commit, perhaps everything.
        """
        with self._executed(token_ids, sent_at) as connection:
            connection.commit()

    def try_out(self, sent_at: datetime) -> None:
        """Run the statement for no token, in a transaction that is rolled back: are its names and rights in order?

        Raises:
            SourceError: as `run`.
        """
        with self._executed([None], sent_at) as connection:  # a null is of every type, and equal to nothing
            connection.rollback()

    @contextmanager
    def _executed(self, token_ids: Collection[str | int | None], sent_at: datetime) -> Iterator[Connection]:
        at = sent_at.astimezone(UTC)
        with (
            self._explained(),
            connected(self._engine, self._url, self._key) as connection,
            self._deadline(connection),
        ):
            self._begin_session(connection)
            values = {TOKEN_IDS: list(token_ids), SENT_AT: at if self._is_postgres else at.replace(tzinfo=None)}
            connection.execute(self._statement, {name: values[name] for name in self._binds})
            yield connection

    @property
    def _is_postgres(self) -> bool:
        return self._url.get_backend_name() == POSTGRES

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
            if error.statement is None and is_option(cause):
                raise ConfigError(explain(cause, self._url, self._key)) from None
            if error.connection_invalidated or never_made:
                raise SourceError(explain(cause, self._url, self._key), unreachable=True) from None
            where = f"the database of {self._key} ({place(self._url)})"
            msg = f"{KEY} failed in {where}: {safe_words(cause)}; mend the statement, or the rights of the account."
            raise SourceError(msg) from None


def load(on_sent: str) -> str:
    """The statement: as it is given, or from the .sql file at a path.

    Raises:
        ConfigError: if there is no such file.
    """
    if not on_sent.endswith(SQL_FILE):
        return on_sent
    path = Path(on_sent)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"{KEY}: {path} cannot be read ({type(error).__name__}); check the path and its permissions."
        raise ConfigError(msg) from None


def _statement(written: str, url: URL) -> tuple[TextClause, set[str]]:
    """The statement and the names of its binds."""
    dialect = dialect_of(url.get_backend_name())
    written = sql_text.one_statement(written, dialect, named=KEY, cure="keep one, or call a function of the database")
    binds = sql_text.binds(written, dialect, named=KEY, known=(TOKEN_IDS, SENT_AT))
    if TOKEN_IDS not in binds:
        msg = f"{KEY} does not use :{TOKEN_IDS}; name the tokens with WHERE id IN :{TOKEN_IDS}."
        raise SourceContractError(msg)
    written = _IN_PARENTHESES.sub(rf"\1 :{TOKEN_IDS}", sql_text.for_sqlalchemy(written, dialect))
    _refuse_other_than_in(sql_text.code(written, dialect))
    # Without a type: Postgres then reads each id in the type of the column that it is compared with.
    statement = text(written).bindparams(bindparam(TOKEN_IDS, expanding=True, type_=NullType()))
    if SENT_AT in binds:
        kind = DateTime(timezone=url.get_backend_name() == POSTGRES)
        statement = statement.bindparams(bindparam(SENT_AT, type_=kind))
    return statement, binds


def _refuse_other_than_in(code: str) -> None:
    if _CAST_IDS.search(code):
        msg = f"{KEY} casts :{TOKEN_IDS}; write id IN :{TOKEN_IDS}, since each id is read in the column's own type."
        raise SourceContractError(msg)
    if len(_IDS.findall(code)) > len(_IN_IDS.findall(code)):
        msg = f"{KEY} uses :{TOKEN_IDS} after something else than IN; write id IN :{TOKEN_IDS}, a list in parentheses."
        raise SourceContractError(msg)


def _url(url: str, key: str) -> URL:
    parsed = parse(url, key)
    if parsed.get_backend_name() == POSTGRES:
        return parsed.set(drivername=PSYCOPG)
    if parsed.get_backend_name() == _SQLITE and parsed.database:
        file = parsed.database.removeprefix("file:").partition("?")[0]
        # Without the mode, a wrong path would make an empty database.
        existing = {"mode": "rw", "uri": "true"}
        return parsed.set(database=f"file:{quote(file)}").update_query_dict(existing)
    return parsed.set(drivername=f"{parsed.drivername}+pymysql") if parsed.drivername in _MYSQL else parsed
