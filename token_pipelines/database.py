"""Database URLs, and the messages for databases' errors. Opens no connection.

We never show a driver's own message: it may quote values, and it rarely says what to do.
"""

from dataclasses import dataclass, replace
from typing import Final, Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from token_pipelines.database_errors import OPTION, POSTGRES_ERRORS, ErrorTable
from token_pipelines.errors import ConfigError

POSTGRES: Final = "postgresql"
HEROKUS: Final = "postgres"
"""The name that Heroku and others use. SQLAlchemy no longer accepts it."""

SQLITE: Final = "sqlite"

PSYCOPG: Final = "postgresql+psycopg"
"""The driver of source and ledger: psycopg 3 keeps values out of its errors."""

PSYCOPG2: Final = "postgresql+psycopg2"
"""The driver of Dagster's storage: with psycopg 3 its webserver cannot launch runs."""

DEMO: Final = "demo"

UNKNOWN: Final = "answered with an error that we do not know ({code}); look into its log"


@dataclass(frozen=True)
class DatabaseUrl:
    """A database's URL, parsed, and the config key that it was read from: ``source.url``.

    Messages name a database by both; `described` leaves out the password.
    """

    parsed: URL
    key: str

    @classmethod
    def read(cls, url: str, key: str) -> Self:
        """Parse the URL of this key.

        Raises:
            ConfigError: if it is not a URL, or if it is the demo's URL and no demo runs.
        """
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            msg = f"{key} is not a database URL; write it like postgresql://user@host/database."
            raise ConfigError(msg) from None
        if parsed.get_backend_name() == HEROKUS:
            parsed = parsed.set(drivername=parsed.drivername.replace(HEROKUS, POSTGRES, 1))
        if parsed.drivername == DEMO:
            msg = f"{key} is {url}, the demo's; run `token-pipelines demo` first, or put your own database's URL there."
            raise ConfigError(msg)
        return cls(parsed, key)

    @classmethod
    def read_postgres(cls, url: str, key: str, driver: str) -> Self:
        """Parse the URL of this key, to be used with ``driver``.

        Raises:
            ConfigError: as `read`, or if it is another kind of database.
        """
        found = cls.read(url, key)
        if found.backend != POSTGRES:
            msg = f"{key} must be a Postgres database (postgresql://…), not {found.backend}."
            raise ConfigError(msg)
        return found.with_parsed(found.parsed.set(drivername=driver))

    def with_parsed(self, parsed: URL) -> Self:
        """The same key with another form of the URL: with a driver or with options, for example."""
        return replace(self, parsed=parsed)

    @property
    def backend(self) -> str:
        """The kind of database, without a driver: ``postgresql``."""
        return self.parsed.get_backend_name()

    @property
    def described(self) -> str:
        """For messages: ``database of source.url (reader@db.example.org/registry)``."""
        return f"database of {self.key} ({describe_url(self.parsed)})"


def explain(error: BaseException, url: DatabaseUrl, errors: ErrorTable = POSTGRES_ERRORS) -> str:
    """One sentence with the cure for a database's error, without values or passwords."""
    meaning = errors.meaning(error)
    if meaning is None:
        said = UNKNOWN.format(code=errors.shown_code(error))
    else:
        variable = f"TOKEN_PIPELINES__{url.key.upper().replace('.', '__')}"
        said = f"{meaning.says}; {meaning.cure.format(variable=variable)}"
    return f"The {url.described} {said}."


def odd_option(url: DatabaseUrl) -> str:
    """The message for an option that the driver refuses before it connects."""
    return f"The {url.described} {OPTION.says}; {OPTION.cure}."


def describe_url(url: URL) -> str:
    """Where a database is, in readable form: user, host, port and name, never the password."""
    if url.get_backend_name() == SQLITE:
        return url.database or ""
    host = url.host or url.query.get("host") or "localhost"
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    return f"{user}{host}{port}/{url.database or ''}"
