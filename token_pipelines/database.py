"""Database URLs, and the sentence for what a database answers. Opens nothing itself.

A driver's own message is never passed on: it may quote values, and it rarely says what to do.
"""

import os
import re
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from token_pipelines.database_errors import OPTION, POSTGRES_ERRORS, ErrorTable
from token_pipelines.errors import ConfigError

POSTGRES: Final = "postgresql"
HEROKUS: Final = "postgres"
"""How Heroku and others write it. SQLAlchemy knows no such database any more."""

SQLITE: Final = "sqlite"

PSYCOPG: Final = "postgresql+psycopg"
"""The driver of source and ledger: psycopg 3 keeps values out of its errors."""

PSYCOPG2: Final = "postgresql+psycopg2"
"""The driver of Dagster's storage: with psycopg 3 its webserver cannot launch runs."""

DEMO: Final = "demo"

_SHOWABLE: Final = re.compile(r"[^@:?&=;#]*|[\[\]0-9A-Fa-f:.%]+")
"""A user, a host or a database without what a URL is divided by; or an IPv6 address."""

UNKNOWN: Final = "answered with an error that we do not know ({code}); look into its log"


LIBPQ_SETTINGS: Final = {"PGCLIENTENCODING": "UTF8", "PGTZ": None, "PGDATESTYLE": None}
"""Variables from which libpq sets up every session, stronger than what a URL or ``options`` asks for.

We read text as UTF-8, and instants in UTC. PGOPTIONS stays: ours take precedence over it.
"""


def parse(url: str, key: str) -> URL:
    """The URL of the config key ``key``.

    Every connection of this process begins here, Dagster's too, so this sets libpq's variables to what we need.

    Raises:
        ConfigError: if it is no URL, or one of the demo's while no demo runs.
    """
    _set_libpq_variables()
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        msg = f"{key} is not a database URL; write it like postgresql://user@host/database."
        raise ConfigError(msg) from None
    if parsed.host is not None and "@" in parsed.host:  # SQLAlchemy ends the password at its first @
        msg = f"{key} has an @ in its user or password; write it there as %40."
        raise ConfigError(msg)
    if parsed.get_backend_name() == HEROKUS:
        return parsed.set(drivername=parsed.drivername.replace(HEROKUS, POSTGRES, 1))
    if parsed.drivername == DEMO:
        cure = "run `token-pipelines demo` first, or put your own database's URL there"
        msg = f"{key} begins with {DEMO}://, as the demo's do; {cure}."
        raise ConfigError(msg)
    return parsed


def _set_libpq_variables() -> None:
    for name, value in LIBPQ_SETTINGS.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def parse_postgres(url: str, key: str, driver: str) -> URL:
    """The URL of the config key ``key``, to be used with ``driver``; refuses every other kind of database."""
    parsed = parse(url, key)
    if parsed.get_backend_name() != POSTGRES:
        msg = f"{key} must be a Postgres database (postgresql://…), not {parsed.get_backend_name()}."
        raise ConfigError(msg)
    return parsed.set(drivername=driver)


def explain(error: BaseException, url: URL, key: str, errors: ErrorTable = POSTGRES_ERRORS) -> str:
    """One sentence with the cure for what a database answered, without a value or a password in it."""
    meaning = errors.meaning(error)
    if meaning is None:
        said = UNKNOWN.format(code=errors.shown_code(error))
    else:
        variable = f"TOKEN_PIPELINES__{key.upper().replace('.', '__')}"
        said = f"{meaning.says}; {meaning.cure.format(variable=variable)}"
    return f"The database of {key} ({describe_url(url)}) {said}."


def odd_option(url: URL, key: str) -> str:
    """The sentence for an option that the driver refuses before it asks the database."""
    return f"The database of {key} ({describe_url(url)}) {OPTION.says}; {OPTION.cure}."


def describe_url(url: URL) -> str:
    """Where a database is, for people: user, host, port and name, never the password nor an option.

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
