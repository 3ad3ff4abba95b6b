"""What the product asks of a kind of database. `generic.py` answers all of it for any that SQLAlchemy reaches."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pyarrow as pa
from sqlalchemy import URL, Connection, Engine

from token_pipelines.config import Source as SourceConfig
from token_pipelines.database import DatabaseUrl, explain
from token_pipelines.database_errors import OPTION, ErrorTable
from token_pipelines.errors import ConfigError, SourceError
from token_pipelines.source.dialect import Dialect
from token_pipelines.source.reader import Reader
from token_pipelines.source.refusals import Refusal
from token_pipelines.source.session import Session


class UnwantedOptionError(Exception):
    """An option of the URL that the driver takes and we do not: what it asks for, and why not, without a full stop."""


class Database(ABC):
    """One kind of database, for reading and for source.on_sent. Keeps no state and no connection."""

    backends: tuple[str, ...]
    """What SQLAlchemy calls it: the part of a URL before the + or the colon."""

    dialect: Dialect
    errors: ErrorTable

    driver_package: str
    """What to install where the driver is missing."""

    zoned_binds: bool
    """A bound instant keeps its zone; elsewhere it is bound without one, in UTC as the session is."""

    # Connecting

    @abstractmethod
    def open_reader(self, url: DatabaseUrl, config: SourceConfig) -> Reader:
        """A reader of the database at this URL. Opens no connection."""

    @abstractmethod
    def engine_url(self, url: URL, *, read_only: bool) -> URL:
        """The URL for SQLAlchemy, with a driver."""

    @abstractmethod
    def connect_arguments(self, url: URL, session: Session) -> dict[str, Any]:
        """What the driver's ``connect`` is given: limits, a name, keepalives.

        Raises:
            UnwantedOptionError: if the URL asks for something that reading does not allow.
        """

    @abstractmethod
    def settings(self, connection: Connection, session: Session) -> list[str]:
        """Statements that begin a session: in UTC, with its limits, read-only where it only reads."""

    @abstractmethod
    def keep_odd_values(self, connection: Connection) -> None:
        """Let this connection's functions return a value that they cannot read as it is, instead of null."""

    # Reading

    @abstractmethod
    def interrupter(self, connection: Connection, engine: Engine) -> Callable[[], None]:
        """A function that ends the statement that runs on the connection, to be called from another thread."""

    @abstractmethod
    def column_types(self, cursor: Any, *, has_rows: bool) -> list[pa.DataType | None]:  # noqa: ANN401 -- any driver's
        """What the driver says of each column; None where only the values can tell."""

    @abstractmethod
    def array(self, name: str, kind: pa.DataType | None, values: Sequence[Any]) -> pa.Array:
        """A column's values, as the driver gives them, in this type.

        Raises:
            SourceContractError: if the values are of several types.
        """

    @abstractmethod
    def reaches_tables(self, plan: Sequence[str], token_ids: Collection[str]) -> bool | None:
        """From the rows of the plan: is the condition on ids carried into the query? None where it cannot be told.

        Where it is not, each batch of notices costs the whole query, unless that marks where the ids belong.
        """

    @abstractmethod
    def lag(self, connection: Connection) -> timedelta | None:
        """How far a replica is behind; None for what is no replica, ``timedelta.max`` where a replica cannot say."""

    # Writing

    @abstractmethod
    def hang_up(self, connection: Connection) -> AbstractContextManager[Callable[[], None] | None]:
        """A function that cuts the connection, to be called from another thread; None where the driver has a limit."""

    # Errors

    @abstractmethod
    def refusal(self, error: BaseException) -> Refusal | None:
        """What the database says against a statement; None where the statement is not what is wrong."""

    @abstractmethod
    def names_only(self, error: BaseException) -> bool:
        """Whether an error that blames no statement names tables, rights and locks only, so that it can be shown."""

    def explained(self, error: BaseException, url: DatabaseUrl) -> ConfigError | SourceError:
        """The error to raise for what the database answered to the source query."""
        refusal = self.refusal(error)
        if refusal is not None:
            return refusal.error()
        said = explain(error, url, self.errors)
        meaning = self.errors.meaning(error)
        if meaning is None:
            return SourceError(said)
        if meaning == OPTION:
            return ConfigError(said)
        return SourceError(said, may_pass=meaning.may_pass, unreachable=meaning.unreachable)

    def safe_words(self, error: BaseException) -> str:
        """What the database says, where that repeats no value; else only which kind of error it is."""
        refusal = self.refusal(error)
        if refusal is not None:
            return refusal.words
        if not self.names_only(error):
            return self.errors.shown_code(error)
        return str(getattr(getattr(error, "diag", None), "message_primary", None) or error.args[-1])
