"""Database URLs and what a database's refusal means in words. Opens nothing itself.

A driver's own message is never passed on: it may quote values, and it rarely says what to do.
"""

import re
from typing import Final

import psycopg
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

_OPTION: Final = ("was given an option that the driver does not take", "check what follows the ? in the URL")

_CURES: Final = (
    (r"invalid (uri query parameter|connection option|\w+ value:)|for connection option", *_OPTION),
    ("(certificate|private key) file", "was given a file for TLS that cannot be used", "check it, and its permissions"),
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
    ("disk i/o error", "cannot be read as a file", "check the path in the URL, and the disk"),
    ("disk image is malformed", "is damaged", "restore it from a copy"),
    ("no space left|disk is full|disk full", "has no room left on its disk", "free some, and run again"),
    ("deadlock", "broke off a deadlock", "run again; nothing is sent twice"),
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
"""Pattern in a message in lower case, what it means, what to do. The first that fits is taken."""

_LOST: Final = ("was lost while we spoke to it", "run again; nothing is sent twice")
_UNKNOWN: Final = ("answered with an error that we do not know ({code})", "look into its log")

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
    "server shutdown in progress",
    "packet sequence number wrong",
    "connection is closed",
    "connection is lost",
    "connection already closed",
    "connection has been closed",
    "connection not open",
    "no connection to the server",
    "consuming input failed",
    "sending query failed",
    "could not send data",
    "ssl syscall error",
    "unexpected eof",
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery",
    "not yet accepting connections",
    "could not serialize access",
)
"""Part of a message in lower case that tells of a replica's conflict or a lost connection. ADBC gives no SQLSTATE for
what happens while rows are fetched, so the text must do."""

_LOST_STATES: Final = ("08", "57P")
"""How the SQLSTATEs of lost connections, and of servers that go down or come up, begin."""


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
    meaning, cure = _meaning(error) or _UNKNOWN
    variable = f"TOKEN_PIPELINES__{key.upper().replace('.', '__')}"
    said = f"{meaning.format(code=code_of(error))}; {cure.format(variable=variable)}"
    return f"The database of {key} ({place(url)}) {said}."


def odd_option(url: URL, key: str) -> str:
    """The sentence for an option that the driver refuses before it asks the database."""
    return f"The database of {key} ({place(url)}) {'; '.join(_OPTION)}."


def is_known(error: BaseException) -> bool:
    """Whether `explain` knows what it means."""
    return _meaning(error) is not None


def is_option(error: BaseException) -> bool:
    """Whether it is an option of the URL that is wrong."""
    return _meaning(error) == _OPTION


def may_pass(error: BaseException) -> bool:
    """Whether reading again on a new connection may go well."""
    text = str(error).lower()
    return any(part in text for part in _MAY_PASS)


def unreachable(error: BaseException) -> bool:
    """Whether there is nobody at the other end."""
    text = str(error).lower()
    return any(re.search(pattern, text) for pattern, meaning, _ in _CURES if meaning == _UNREACHABLE)


def sqlstate_of(error: BaseException) -> str:
    """The SQLSTATE that a driver of Postgres gives; empty where it gives none."""
    return str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")


def code_of(error: BaseException) -> str:
    """Which error it is, without its words: they may quote a value."""
    if error.args and isinstance(error.args[0], int):  # MariaDB's and MySQL's, whose SQLSTATEs say less
        return f"error {error.args[0]}"
    sqlstate = sqlstate_of(error)
    if sqlstate:
        try:
            return f"SQLSTATE {sqlstate}, {psycopg.errors.lookup(sqlstate).__name__}"
        except KeyError:
            return f"SQLSTATE {sqlstate}"
    return str(getattr(error, "sqlite_errorname", None) or type(error).__name__)


def _meaning(error: BaseException) -> tuple[str, str] | None:
    """What it means and what to do; None where we do not know."""
    text = str(error).lower()
    fits = ((meaning, cure) for pattern, meaning, cure in _CURES if re.search(pattern, text))
    lost = may_pass(error) or sqlstate_of(error).startswith(_LOST_STATES)
    return next(fits, _LOST if lost else None)


def place(url: URL) -> str:
    """Where a database is, for people: user, host, port and name, never the password."""
    if url.get_backend_name() == SQLITE:
        return url.database or ""
    host = url.host or url.query.get("host") or "localhost"
    user = f"{url.username}@" if url.username else ""
    port = f":{url.port}" if url.port else ""
    return f"{user}{host}{port}/{url.database or ''}"
