"""Any database that SQLAlchemy reaches, by the plainest SQL. The other kinds derive from it. Not tested by us.

Errors are recognised by their SQLSTATE, whose classes are standard, where the driver gives one.
"""

import re
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, Final

import pyarrow as pa
from sqlalchemy import URL, Connection, Engine

from token_pipelines import database_errors as meanings
from token_pipelines.config import Source as SourceConfig
from token_pipelines.database import DatabaseUrl
from token_pipelines.database_errors import Cause, ErrorTable
from token_pipelines.source import columns
from token_pipelines.source.databases.database import Database
from token_pipelines.source.databases.rows_reader import RowsReader
from token_pipelines.source.dialect import Dialect
from token_pipelines.source.reader import Reader
from token_pipelines.source.refusals import Blame, Refusal
from token_pipelines.source.session import Session

STATEMENT_CLASSES: Final = {"07", "0A", "21", "25", "26", "2B", "34", "3F", "42"}
"""Classes of SQLSTATE that blame the statement. Their messages name identifiers only."""

VALUE_CLASS: Final = "22"
UNKNOWN_CLASSES: Final = {"23", "2F", "38", "39", "HV", "P0"}
"""Of constraints, of other servers, of functions, whose messages may say anything."""

NAMING_CLASSES: Final = {"40", "42", "53", "55", "57"}
"""What names tables, rights and locks, and no value."""

_SQLSTATE: Final = re.compile(r"[0-9A-Z]{5}")


def sqlstate_of(error: BaseException) -> str:
    """The SQLSTATE as an attribute, or as the first argument, where pyodbc puts it."""
    found = meanings.sqlstate_of(error)
    first = error.args[0] if error.args else None
    return first if not found and isinstance(first, str) and _SQLSTATE.fullmatch(first) else found


class Generic(Database):
    """Reads rows through SQLAlchemy, and knows nothing of the database beyond standard SQL."""

    backends: tuple[str, ...] = ()
    driver_package = "the package that SQLAlchemy names for it"
    zoned_binds = False
    dialect = Dialect(
        name="this database",
        from_epoch="a function of the database that makes a timestamp of it",
        from_date="CAST({name} AS timestamp)",
        from_text="CAST({name} AS timestamp)",
        without_extremes="CASE WHEN {name} < DATE '9999-01-01' THEN {name} END",
    )
    errors = ErrorTable(
        code_of=sqlstate_of,
        show=meanings.show_sqlstate,
        causes=(
            Cause(meaning=meanings.WRONG_LOGIN, codes=("28",), text="(authentication|login) failed|access denied"),
            Cause(meaning=meanings.DENIED, codes=("42501",), text="permission denied|insufficient privileges"),
            Cause(meaning=meanings.NO_DATABASE, codes=("3D",), text="unknown database"),
            Cause(meaning=meanings.NO_HOST, text=meanings.NO_HOST_TEXT),
            Cause(meaning=meanings.NO_CONNECTION_LEFT, text="too many (clients|connections)"),
            Cause(meaning=meanings.DEADLOCK, codes=("40",), text="deadlock"),
            Cause(meaning=meanings.FULL_DISK, text="no space left|disk is full|disk full"),
            Cause(meaning=meanings.LOST, codes=("08",), text=meanings.LOST_TEXT),
            Cause(meaning=meanings.SILENT, codes=("HYT",), text=meanings.SILENT_TEXT),
            Cause(meaning=meanings.UNREACHABLE, codes=("08001", "08004"), text=meanings.UNREACHABLE_TEXT),
        ),
    )

    def open_reader(self, url: DatabaseUrl, config: SourceConfig) -> Reader:
        """See Database."""
        return RowsReader(self, url, config)

    def engine_url(self, url: URL, *, read_only: bool) -> URL:  # noqa: ARG002 -- as Database says
        """See Database."""
        return url

    def connect_arguments(self, url: URL, session: Session) -> dict[str, Any]:  # noqa: ARG002 -- as Database says
        """See Database."""
        return {}

    def settings(self, connection: Connection, session: Session) -> list[str]:  # noqa: ARG002 -- as Database says
        """See Database."""
        return []

    def keep_odd_values(self, connection: Connection) -> None:
        """See Database."""

    def interrupter(self, connection: Connection, engine: Engine) -> Callable[[], None]:  # noqa: ARG002 -- as Database says
        """See Database. Where the driver has no such function, the deadline counts between two partitions only."""
        driver = connection.connection.driver_connection
        interrupt = getattr(driver, "interrupt", None) or getattr(driver, "cancel", None)
        return interrupt if callable(interrupt) else _leave_running

    def column_types(self, cursor: Any, *, has_rows: bool) -> list[pa.DataType | None]:  # noqa: ANN401, ARG002 -- as Database says
        """See Database."""
        return [None for _ in cursor.description]

    def array(self, name: str, kind: pa.DataType | None, values: Sequence[Any]) -> pa.Array:
        """See Database."""
        return columns.array(name, kind, values)

    def reaches_tables(self, plan: Sequence[str], token_ids: Collection[str]) -> bool | None:  # noqa: ARG002 -- as Database says
        """See Database."""
        return None

    def lag(self, connection: Connection) -> timedelta | None:  # noqa: ARG002 -- as Database says
        """See Database."""
        return None

    def hang_up(self, connection: Connection) -> AbstractContextManager[Callable[[], None] | None]:  # noqa: ARG002 -- as Database says
        """See Database."""
        return nullcontext()

    def refusal(self, error: BaseException) -> Refusal | None:
        """See Database."""
        sqlstate = self.errors.code_of(error)
        meaning = self.errors.meaning(error)
        shown = self.errors.shown_code(error)
        if sqlstate[:2] in STATEMENT_CLASSES:
            return None if meaning == meanings.DENIED else Refusal(Blame.STATEMENT, self.statement_words(error))
        if sqlstate[:2] == VALUE_CLASS:
            return Refusal(Blame.VALUE, shown)
        return Refusal(Blame.UNKNOWN, shown) if sqlstate[:2] in UNKNOWN_CLASSES else None

    def statement_words(self, error: BaseException) -> str:
        """What an error that blames the statement says, on one line."""
        primary = getattr(getattr(error, "diag", None), "message_primary", None)
        return str(primary or self.errors.shown_code(error))

    def names_only(self, error: BaseException) -> bool:
        """See Database."""
        return self.errors.code_of(error)[:2] in NAMING_CLASSES


def _leave_running() -> None:
    """For a driver that cannot be interrupted."""


GENERIC: Final = Generic()
