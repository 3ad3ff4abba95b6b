"""Database URLs and what a database's refusal means in words. Opens nothing itself.

A driver's own message is never passed on: it may quote values, and it rarely says what to do.
"""

from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

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

_UNREACHABLE: Final = "cannot be reached"

_CURES: Final = (
    ("password authentication failed", "refused the login", "check the user and the password"),
    ("no password supplied", "asks for a password", "set the whole URL in the environment ({variable})"),
    ("authentication failed", "refused the login", "check the user and its entry in pg_hba.conf"),
    ("no pg_hba.conf entry", "refused the login", "add this host and user to pg_hba.conf"),
    ('role "', "does not know the user", "check the user in the URL, or create the role"),
    (
        "not currently accepting connections",
        "takes no connections",
        "allow them: ALTER DATABASE … ALLOW_CONNECTIONS true",
    ),
    ('database "', "has no such database", "check the name after the last / of the URL, or create the database"),
    ("could not translate host name", "has a host name that is not known", "check the host in the URL"),
    ("name or service not known", "has a host name that is not known", "check the host in the URL"),
    ("failed to resolve host", "has a host name that is not known", "check the host in the URL"),
    ("too many clients", "has no connection left", "raise max_connections, or lower smtp.connections"),
    ("permission denied", "refused the access", "grant it: docs/failures.md lists the rights that are needed"),
    ("read-only transaction", "is a replica or read-only", "point the URL at the primary"),
    ("command denied", "refused the access", "grant it: docs/failures.md lists the rights that are needed"),
    ("access denied; you need", "refused the access", "grant it: docs/failures.md lists the rights that are needed"),
    ("access denied", "refused the login", "check the user, the password and the host from which it may connect"),
    ("unknown database", "has no such database", "check the name after the last / of the URL, or create the database"),
    ("unknown mysql server host", "has a host name that is not known", "check the host in the URL"),
    ("can't connect to", _UNREACHABLE, "check that it runs and that this machine may connect"),
    ("too many connections", "has no connection left", "raise max_connections, or lower smtp.connections"),
    ("unable to open database file", "cannot be opened", "check the path in the URL and the file's permissions"),
    ("not a database", "is no SQLite file, or encrypted", "check the path in the URL"),
    ("database is locked", "waited too long for a lock", "run again when what writes to it has finished"),
    ("lock wait timeout", "waited too long for a lock", "run again when the migration on it has finished"),
    (
        "statement execution time exceeded",
        "took too long",
        "raise source.statement_timeout, or add the index in docs/sources",
    ),
    (
        "max_statement_time exceeded",
        "took too long",
        "raise source.statement_timeout, or add the index in docs/sources",
    ),
    (
        "conflict with recovery",
        "is a replica that broke off the read",
        "run again, or raise max_standby_streaming_delay there",
    ),
    ("statement timeout", "took too long", "raise source.statement_timeout, or add the index in docs/sources"),
    ("lock timeout", "waited too long for a lock", "run again when the migration on it has finished"),
    ("could not connect", _UNREACHABLE, "check that it runs and that this machine may connect"),
    ("connection refused", _UNREACHABLE, "check that it runs and that this machine may connect"),
    ("connection failed", _UNREACHABLE, "check that it runs and that this machine may connect"),
    ("no such file or directory", _UNREACHABLE, "check that it runs and that this machine may connect"),
    ("timeout expired", "did not answer in time", "check the host, the port and the firewall"),
    ("timed out", "did not answer in time", "check the host, the port and the firewall"),
)
"""Part of a message in lower case, what it means, what to do. The first that fits is taken."""

_LOST: Final = ("was lost while we spoke to it", "run again; nothing is sent twice")


_MAY_PASS: Final = (
    "conflict with recovery",
    "terminating connection",
    "server closed the connection",
    "connection reset",
    "broken pipe",
    "could not receive data",
    "eof detected",
    "lost connection to",
    "server has gone away",
    "connection was killed",
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery",
    "not yet accepting connections",
    "could not serialize access",
)
"""Part of a message in lower case that tells of a replica's conflict or a lost connection. ADBC gives no SQLSTATE for
what happens while rows are fetched, so the text must do."""


def parse(url: str, key: str) -> URL:
    """The URL of the config key ``key``.

    Raises:
        ConfigError: if it is no URL, or one of the demo's while no demo runs.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        msg = f"{key} is not a database URL; write it like postgresql://user@host/database."
        raise ConfigError(msg) from None
    if parsed.get_backend_name() == HEROKUS:
        return parsed.set(drivername=parsed.drivername.replace(HEROKUS, POSTGRES, 1))
    if parsed.drivername == DEMO:
        msg = f"{key} is {url}, the demo's; run `token-pipelines demo` first, or put your own database's URL there."
        raise ConfigError(msg)
    return parsed


def parse_postgres(url: str, key: str, driver: str) -> URL:
    """The URL of the config key ``key``, to be used with ``driver``; refuses every other kind of database."""
    parsed = parse(url, key)
    if parsed.get_backend_name() != POSTGRES:
        msg = f"{key} must be a Postgres database (postgresql://…), not {parsed.get_backend_name()}."
        raise ConfigError(msg)
    return parsed.set(drivername=driver)


def explain(error: BaseException, url: URL, key: str) -> str:
    """One sentence with the cure for what a database answered, without a value or a password in it."""
    text = str(error).lower()
    fits = ((meaning, cure) for part, meaning, cure in _CURES if part in text)
    meaning, cure = next(fits, _LOST)
    variable = f"TOKEN_PIPELINES__{key.upper().replace('.', '__')}"
    return f"The database of {key} ({place(url)}) {meaning}; {cure.format(variable=variable)}."


def may_pass(error: BaseException) -> bool:
    """Whether reading again on a new connection may go well."""
    text = str(error).lower()
    return any(part in text for part in _MAY_PASS)


def unreachable(error: BaseException) -> bool:
    """Whether there is nobody at the other end."""
    text = str(error).lower()
    return any(part in text for part, meaning, _ in _CURES if meaning == _UNREACHABLE)


def place(url: URL) -> str:
    """Where a database is, for people: user, host, port and name, never the password."""
    if url.get_backend_name() == SQLITE:
        return url.database or ""
    host = url.host or url.query.get("host") or "localhost"
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    return f"{user}{host}{port}/{url.database or ''}"
