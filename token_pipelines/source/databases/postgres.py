"""Postgres: read through ADBC; source.on_sent runs through psycopg. Errors are known by their SQLSTATE."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import URL, Connection

from token_pipelines.config import Source as SourceConfig
from token_pipelines.database import POSTGRES as BACKEND
from token_pipelines.database import PSYCOPG, DatabaseUrl
from token_pipelines.database_errors import POSTGRES_ERRORS
from token_pipelines.source import scopes
from token_pipelines.source.databases import postgres_session
from token_pipelines.source.databases.generic import Generic
from token_pipelines.source.databases.postgres_reader import INFINITIES, PostgresReader
from token_pipelines.source.dialect import ID_OCTETS, TEXT_AT_MOST, Dialect
from token_pipelines.source.reader import Reader
from token_pipelines.source.refusals import Blame, Refusal
from token_pipelines.source.session import CONNECT_TIMEOUT_S, Session

KEEPALIVES: Final = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
"""A server that has vanished is noticed within a minute; the kernel's own default is two hours."""

_NO_OPERATOR: Final = "42883"
_TO_INSTANT: Final = (
    "make an instant of the column, with to_timestamp(…) of seconds since 1970, with CAST(… AS timestamptz) of text, "
    "in the WHERE of source.query as in its SELECT"
)

_SCOPE: Final = f"left(CAST(scope AS text), {scopes.LONGEST})"
_FLAT_ARRAY: Final = f"ARRAY(SELECT {_SCOPE} FROM unnest({{name}}) AS scope LIMIT {scopes.AT_MOST}) AS {{name}}"  # noqa: S608 -- constants only

_MESSAGE: Final = re.compile(r"(?:^|\s)[^\s:]+:  (.+)")
"""A server's message as libpq writes it: the severity in the server's language, a colon, two blanks, one line."""

_SAFE_BEGINNING: Final = re.compile(
    r"invalid input syntax for type [a-z ]+|division by zero|[a-z ]+ out of range|numeric field overflow"
    r"|invalid input value for enum \w+|cannot take [a-z ]+ of a negative number|negative substring length not allowed"
)
"""What English messages about a row's value say before they quote it: plainer than their SQLSTATE."""


class Postgres(Generic):
    """Postgres."""

    backends = (BACKEND,)
    zoned_binds = True
    errors = POSTGRES_ERRORS
    dialect = Dialect(
        name="Postgres",
        from_epoch="to_timestamp({name})",
        from_date="({name}::timestamp AT TIME ZONE 'UTC')",
        from_text="({name}::timestamptz)",
        without_extremes="CASE WHEN isfinite({name}) THEN {name} END",
        extremes={"an infinite": INFINITIES},
        binary_as_text="encode({name}, 'hex')",
        has_booleans=True,
        untyped_literals=True,
        # One octet more than an id may have: a longer one stays too long, and does not become another's.
        id_as_text=f"left(CAST({{name}} AS text), {ID_OCTETS + 1}) AS {{name}}",
        shortened=f"left(CAST({{name}} AS text), {TEXT_AT_MOST}) AS {{name}}",
        flat_array=_FLAT_ARRAY,
        has_address="(email IS NOT NULL AND trim(email) <> '') AS has_address",
    )

    def open_reader(self, url: DatabaseUrl, config: SourceConfig) -> Reader:
        """See Database. Whatever driver the URL names."""
        return PostgresReader(self, url.with_parsed(url.parsed.set(drivername=BACKEND)), config)

    def engine_url(self, url: URL, *, read_only: bool) -> URL:  # noqa: ARG002 -- as Database says
        """See Database."""
        return url.set(drivername=PSYCOPG)

    def connect_arguments(self, url: URL, session: Session) -> dict[str, Any]:  # noqa: ARG002 -- as Database says
        """See Database. For libpq, so for ADBC too."""
        return {
            # Named here, it counts whatever the URL and PGCLIENTENCODING say.
            "client_encoding": "UTF8",
            "application_name": session.application_name,
            "connect_timeout": str(CONNECT_TIMEOUT_S),
            **KEEPALIVES,
        }

    def settings(self, connection: Connection, session: Session) -> list[str]:  # noqa: ARG002 -- as Database says
        """See Database."""
        return postgres_session.statements(session)

    @contextmanager
    def hang_up(self, connection: Connection) -> Iterator[Callable[[], None]]:
        """See Database. A server that is stopped or out of reach keeps no timeout of its own."""
        line = os.dup(connection.connection.fileno())  # our own, which stays open when the driver closes its one
        with socket.socket(fileno=line) as same:
            yield lambda: same.shutdown(socket.SHUT_RDWR)

    def refusal(self, error: BaseException) -> Refusal | None:
        """See Database."""
        found = super().refusal(error)
        if found is None or found.blame is Blame.UNKNOWN:
            return found
        said = _message(error)
        if found.blame is Blame.VALUE:
            safe = _SAFE_BEGINNING.match(said)
            return Refusal(Blame.VALUE, safe[0]) if safe else found
        # The names of types are the same in every language.
        is_instant = self.errors.code_of(error) == _NO_OPERATOR and "timestamp" in said
        return Refusal(found.blame, found.words, _TO_INSTANT) if is_instant else found

    def statement_words(self, error: BaseException) -> str:
        """What an error that blames the statement says, in the server's language."""
        return _message(error) or self.errors.shown_code(error)


def _message(error: BaseException) -> str:
    """The first line of what the server says; empty where it says nothing."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)  # psycopg
    found = _MESSAGE.search(str(error))  # ADBC
    return str(primary or (found[1].strip() if found else ""))


POSTGRES: Final = Postgres()
