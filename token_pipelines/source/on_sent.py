"""Runs `source.on_sent` after sending: one statement of the operator's, which records the tokens written about.

Each batch has a connection of its own, in UTC, with the source's timeouts. The ledger is not touched here.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, DateTime, TextClause, bindparam, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.types import NullType

from token_pipelines.config import ON_SENT_URL, SOURCE_URL, SQL_FILE
from token_pipelines.config import Source as SourceConfig
from token_pipelines.database import DatabaseUrl, explain
from token_pipelines.database_errors import OPTION, READ_ONLY
from token_pipelines.errors import ConfigError, SourceContractError, SourceError
from token_pipelines.source import sql_text
from token_pipelines.source.databases.database import Database
from token_pipelines.source.databases.known import database_of
from token_pipelines.source.databases.rows_reader import MARGIN
from token_pipelines.source.deadline import Deadline
from token_pipelines.source.engines import connected, make_engine
from token_pipelines.source.session import Session
from token_pipelines.text_files import UnreadableFileError, read_text

ON_SENT: Final = "source.on_sent"
"""The statement's key in the config."""

TOKEN_IDS: Final = "token_ids"  # noqa: S105 -- a bind's name
SENT_AT: Final = "sent_at"

_IDS: Final = re.compile(rf":{TOKEN_IDS}\b")
_IN_IDS: Final = re.compile(rf"\bin\s*:{TOKEN_IDS}\b", re.IGNORECASE)
_IN_PARENTHESES: Final = re.compile(rf"\b(in)\s*\(\s*:{TOKEN_IDS}\s*\)", re.IGNORECASE)
_CAST_IDS: Final = re.compile(rf":{TOKEN_IDS}\s*::")
"""The ids become a list in parentheses: they can stand behind IN, and nowhere else."""


class OnSentStatement:
    """The statement, ready to be run."""

    def __init__(self, config: SourceConfig) -> None:
        """Take ``config.on_sent``: SQL, or the path of a .sql file. Opens nothing.

        Raises:
            ConfigError: if the file, the URL or its driver is wrong.
            SourceContractError: if the statement does not ask for the tokens, or asks for other binds.
        """
        secret, key = (config.url, SOURCE_URL) if config.on_sent_url is None else (config.on_sent_url, ON_SENT_URL)
        url = DatabaseUrl.read(secret.get_secret_value(), key)
        self._database = database_of(url.backend)
        self._url = url.with_parsed(self._database.engine_url(url.parsed, read_only=False))
        self._statement, self._binds = _statement(load(config.on_sent or ""), self._database)
        self._session = Session.to_write(config)
        self._engine = make_engine(self._url, self._database, self._session)
        self.fault = ""
        """Why its last run failed. Its caller sets it, and reports it once."""

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
            connected(self._engine, self._url) as connection,
            self._deadline(connection),
        ):
            for setting in self._database.settings(connection, self._session):
                connection.exec_driver_sql(setting)
            values = {
                TOKEN_IDS: list(token_ids),
                SENT_AT: at if self._database.zoned_binds else at.replace(tzinfo=None),
            }
            connection.execute(self._statement, {name: values[name] for name in self._binds})
            yield connection

    @contextmanager
    def _deadline(self, connection: Connection) -> Iterator[None]:
        """Cut the connection where the database keeps neither its own timeout nor the driver's."""
        with self._database.hang_up(connection) as hang_up:
            if hang_up is None:
                yield
                return
            silent = (
                f"The {self._url.described} did not answer in time; check that it runs and that it is not overloaded."
            )
            deadline = Deadline(self._session.statement_timeout + MARGIN, silent)
            try:
                with deadline.watch(hang_up):
                    yield
            except SourceError as error:
                raise SourceError(str(error), unreachable=True) from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            cause = error.orig or error
            never_connected = error.statement is None and isinstance(error, OperationalError | InterfaceError)
            said = explain(cause, self._url, self._database.errors)
            if error.statement is None and self._database.errors.meaning(cause) == OPTION:
                raise ConfigError(said) from None
            if error.connection_invalidated or never_connected:
                raise SourceError(said, unreachable=True) from None
            if self._database.errors.meaning(cause) == READ_ONLY:
                raise SourceError(said) from None
            words = self._database.safe_words(cause)
            cure = "fix the statement, or the rights of the account"
            msg = f"{ON_SENT} failed in the {self._url.described}: {words}; {cure}."
            raise SourceError(msg) from None


def load(on_sent: str) -> str:
    """The statement: as it is given, or from the .sql file at a path.

    Raises:
        ConfigError: if the file cannot be read.
    """
    if not on_sent.endswith(SQL_FILE):
        return on_sent
    path = Path(on_sent)
    try:
        return read_text(path)
    except UnreadableFileError as error:
        msg = f"{ON_SENT}: {path} {error}."
        raise ConfigError(msg) from None


def _statement(written: str, database: Database) -> tuple[TextClause, set[str]]:
    """The statement and the names of its binds."""
    dialect = database.dialect
    written = sql_text.one_statement(
        written, dialect, named=ON_SENT, cure="keep one, or call a function of the database"
    )
    binds = sql_text.binds(written, dialect, named=ON_SENT, known=(TOKEN_IDS, SENT_AT))
    if TOKEN_IDS not in binds:
        msg = f"{ON_SENT} does not use :{TOKEN_IDS}; name the tokens with WHERE id IN :{TOKEN_IDS}."
        raise SourceContractError(msg)
    written = _IN_PARENTHESES.sub(rf"\1 :{TOKEN_IDS}", sql_text.for_sqlalchemy(written, dialect))
    _refuse_other_than_in(sql_text.code(written, dialect))
    # Without a type: Postgres then reads each id in the type of the column that it is compared with.
    statement = text(written).bindparams(bindparam(TOKEN_IDS, expanding=True, type_=NullType()))
    if SENT_AT in binds:
        statement = statement.bindparams(bindparam(SENT_AT, type_=DateTime(timezone=database.zoned_binds)))
    return statement, binds


def _refuse_other_than_in(code: str) -> None:
    if _CAST_IDS.search(code):
        msg = f"{ON_SENT} casts :{TOKEN_IDS}; write id IN :{TOKEN_IDS}, since each id is read in the column's own type."
        raise SourceContractError(msg)
    if len(_IDS.findall(code)) > len(_IN_IDS.findall(code)):
        cure = f"write id IN :{TOKEN_IDS}, a list in parentheses"
        msg = f"{ON_SENT} uses :{TOKEN_IDS} after something else than IN; {cure}."
        raise SourceContractError(msg)
