"""Database URLs, and the messages for databases' errors. Opens no connection.

We never show a driver's own message: it may quote values, and it rarely says what to do.
"""

import os
import re
from collections.abc import Mapping
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

_SHOWABLE: Final = re.compile(r"[^@:?&=;#]*|[\[\]0-9A-Fa-f:.%]+")
"""A user, a host or a database without what a URL is divided by; or an IPv6 address."""

_USER: Final = re.compile(r"^[^/]*//[^:/@]*(:[^@]*)?@")
"""What precedes the host, as SQLAlchemy finds it."""

UNKNOWN: Final = "answered with an error that we do not know ({code}); look into its log"


LIBPQ_SETTINGS: Final = {"PGCLIENTENCODING": "UTF8", "PGTZ": "UTC", "PGDATESTYLE": None}
"""Variables from which libpq sets up every session, stronger than what a URL, a role or a database asks for.

Dagster's own connections have no other setting. It reads as UTC what the server writes down as the present time.
PGOPTIONS stays: it may hold the search_path in which the operator's tables are.
"""


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

        Every connection of this process begins here, Dagster's too, so this sets libpq's variables to what we need.

        Raises:
            ConfigError: if it is not a URL, or if it is the demo's URL and no demo runs.
        """
        _set_libpq_variables()
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            msg = f"{key} is not a database URL; write it like postgresql://user@host/database."
            raise ConfigError(msg) from None
        if parsed.get_backend_name() != SQLITE and _has_at_sign_too_many(url):
            msg = f"{key} has an @ in its user or password; write it there as %40."
            raise ConfigError(msg)
        if parsed.get_backend_name() == HEROKUS:
            parsed = parsed.set(drivername=parsed.drivername.replace(HEROKUS, POSTGRES, 1))
        if parsed.drivername == DEMO:
            cure = "run `token-pipelines demo` first, or put your own database's URL there"
            msg = f"{key} begins with {DEMO}://, as the demo's do; {cure}."
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


def _has_at_sign_too_many(url: str) -> bool:
    """Whether an @ stands behind the user. SQLAlchemy ends a password at its first @: the rest may be a piece of it."""
    after_user = _USER.sub("", url, count=1)
    return "@" in after_user


def _set_libpq_variables() -> None:
    for name, value in LIBPQ_SETTINGS.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def set_settings(settings: Mapping[str, str], *, local: bool) -> str:
    """A statement that sets these settings of Postgres, for the session or until the transaction ends.

    Passes over a setting that the server is too old for. Names and values are our own, without quotes.
    """
    pairs = ", ".join(f"('{name}', '{value}')" for name, value in settings.items())
    known = f"(VALUES {pairs}) AS setting (name, value) WHERE current_setting(name, true) IS NOT NULL"
    return f"SELECT set_config(name, value, {str(local).lower()}) FROM {known}"  # noqa: S608 -- constants only


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
    """Where a database is, in readable form: user, host, port and name, never the password nor an option.

    A URL whose parts may hold a piece of a password, since it has an @ in it, is not shown.
    """
    if url.get_backend_name() == SQLITE:
        return url.database or ""
    hosts = url.host or url.query.get("host") or "localhost"
    host = hosts if isinstance(hosts, str) else ",".join(hosts)
    parts = (url.username or "", host, url.database or "")
    if not all(map(_SHOWABLE.fullmatch, parts)):
        return "its URL is not shown, as it may hold a password"
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    return f"{user}{host}{port}/{url.database or ''}"
