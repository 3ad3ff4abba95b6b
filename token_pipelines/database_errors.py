"""What a database's error means for the operator. The code decides first, the English text last.

A server may write its messages in any language (``lc_messages = de_DE``), but its SQLSTATEs and error numbers are the
same everywhere. The text decides only if the driver gives no code: when a connection was never made or has broken.

All databases share the meanings. Each kind of database has a table from errors to meanings: that of Postgres is here,
since the ledger needs it too; the others are in source/databases/.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psycopg


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What has happened and what to do. ``says`` continues the sentence "The database of …".

    ``may_pass``: the statement may succeed on a new connection. ``unreachable``: no connection was made.
    """

    says: str
    cure: str
    may_pass: bool = False
    unreachable: bool = False


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One meaning, and how to recognise it: by codes or their prefixes, else by a pattern for lower-case text."""

    meaning: Meaning
    codes: tuple[str, ...] = ()
    text: str = ""

    def fits(self, text: str) -> bool:
        """Whether the text of an error matches this cause."""
        return bool(self.text and re.search(self.text, text))


@dataclass(frozen=True, kw_only=True)
class ErrorTable:
    """The causes of errors in one kind of database.

    ``code_of`` returns an error's SQLSTATE, number or name, or ``""`` if the driver gives none. ``show`` formats it for
    a message.
    """

    code_of: Callable[[BaseException], str]
    show: Callable[[str], str]
    causes: tuple[Cause, ...]

    def meaning(self, error: BaseException) -> Meaning | None:
        """What the error means; None if it is not in the table.

        If several causes share a code, the text decides among them. The first one is the default.
        """
        text = str(error).lower()
        code = self.code_of(error)
        candidates = self._by_code(code) if code else self.causes
        fitting = (cause.meaning for cause in candidates if cause.fits(text))
        return next(fitting, candidates[0].meaning if code and candidates else None)

    def shown_code(self, error: BaseException) -> str:
        """The error's code for a message. Leaves out its text, which may quote a value."""
        code = self.code_of(error)
        return self.show(code) if code else type(error).__name__

    def _by_code(self, code: str) -> tuple[Cause, ...]:
        """The causes that have the longest prefix of this code."""
        for end in range(len(code), 0, -1):
            found = tuple(cause for cause in self.causes if code[:end] in cause.codes)
            if found:
                return found
        return ()


# The meanings


_CHECK_NAME: Final = "check the name after the last / of the URL, or create the database"
_CHECK_HOST: Final = "check that it runs and that this machine may connect"
_SLOW: Final = "raise source.statement_timeout, or add the index in docs/sources"

OPTION: Final = Meaning(
    says="was given an option that the driver does not take", cure="check what follows the ? in the URL"
)
TLS_FILE: Final = Meaning(
    says="was given a file for TLS that cannot be used", cure="check the file, and its permissions"
)
WRONG_PASSWORD: Final = Meaning(says="refused the login", cure="check the user and the password")
NO_PASSWORD: Final = Meaning(says="asks for a password", cure="set the whole URL in the environment ({variable})")
WRONG_LOGIN: Final = Meaning(
    says="refused the login", cure="check the user, the password and the host from which it may connect"
)
NOT_IN_PG_HBA: Final = Meaning(says="refused the login", cure="add this host and user to pg_hba.conf")
WRONG_IN_PG_HBA: Final = Meaning(says="refused the login", cure="check the user and its entry in pg_hba.conf")
NO_ROLE: Final = Meaning(says="does not know the user", cure="check the user in the URL, or create the role")
NO_DATABASE: Final = Meaning(says="has no such database", cure=_CHECK_NAME)
CLOSED_DATABASE: Final = Meaning(
    says="takes no connections", cure="allow them: ALTER DATABASE … ALLOW_CONNECTIONS true"
)
REFUSED_CONNECTION: Final = Meaning(
    says="refused the connection",
    cure="look into its log for the reason, and check the user, the password and the name of the database",
    unreachable=True,
)
NO_HOST: Final = Meaning(says="has a host name that is not known", cure="check the host in the URL")
UNREACHABLE: Final = Meaning(says="cannot be reached", cure=_CHECK_HOST, unreachable=True)
SILENT: Final = Meaning(
    says="did not answer in time", cure="check the host, the port and the firewall", unreachable=True
)
LOST: Final = Meaning(says="was lost while we spoke to it", cure="run again; nothing is sent twice", may_pass=True)
NO_CONNECTION_LEFT: Final = Meaning(
    says="has no connection left", cure="raise max_connections, or end connections that are not needed"
)
NO_CONNECTION_FOR_ROLE: Final = Meaning(
    says="allows this user no more connections",
    cure="raise the limit with ALTER ROLE … CONNECTION LIMIT: a run needs about four to the ledger",
)
NO_CONNECTION_TO_DATABASE: Final = Meaning(
    says="allows no more connections", cure="raise the limit with ALTER DATABASE … CONNECTION LIMIT"
)
NO_LOGIN: Final = Meaning(says="does not let the user log in", cure="allow it: ALTER ROLE … LOGIN")
NO_SCHEMA: Final = Meaning(
    says="has no schema in which tables can be made",
    cure="check search_path: in PGOPTIONS, in the URL's options, or set for the role or the database",
)
POOLER_REFUSES_OPTIONS: Final = Meaning(
    says="is behind a pooler that refuses start-up options",
    cure="remove PGOPTIONS and the URL's options, or add options to ignore_startup_parameters of the pooler",
)
POOLED_STATEMENTS: Final = Meaning(
    says="is behind a pooler that pools single statements", cure="set pool_mode to session or transaction there"
)
POOL_IS_FULL: Final = Meaning(
    says="has no connection left in its pooler",
    cure="raise default_pool_size there: a run needs about four to the ledger",
    may_pass=True,
)
POOLER_IS_FULL: Final = Meaning(
    says="is behind a pooler that takes no more clients", cure="raise max_client_conn there"
)
NOT_IN_POOLER: Final = Meaning(
    says="is not in the list of its pooler",
    cure="add it to [databases] there, or check the name after the last / of the URL",
)
POOLER_WITHOUT_SERVER: Final = Meaning(
    says="is behind a pooler that cannot log in to it", cure="look into the log of the pooler", unreachable=True
)
ODD_SETTING: Final = Meaning(
    says="refused a setting of this session",
    cure="check PGOPTIONS, PGCLIENTENCODING, PGTZ and PGDATESTYLE in the environment, and the URL's options",
)
DENIED: Final = Meaning(says="refused the access", cure="grant it: docs/failures.md lists the rights that are needed")
READ_ONLY: Final = Meaning(
    says="is a replica or read-only",
    cure="point the URL at the primary, or turn off default_transaction_read_only for the role or the database",
)
REPLICA_CONFLICT: Final = Meaning(
    says="is a replica that broke off the read",
    cure="run again, or raise max_standby_streaming_delay there",
    may_pass=True,
)
TOO_LONG: Final = Meaning(says="took too long", cure=_SLOW)
CANCELLED: Final = Meaning(
    says="cancelled the statement on request", cure="look into its log for who did it; run again"
)
LOCKED: Final = Meaning(says="waited too long for a lock", cure="run again when the migration on it has finished")
DEADLOCK: Final = Meaning(says="broke off a deadlock", cure="run again; nothing is sent twice")
FULL_DISK: Final = Meaning(says="has no room left on its disk", cure="free some, and run again")

NO_HOST_TEXT: Final = "could not translate host name|name or service not known|failed to resolve host|name resolution"
UNREACHABLE_TEXT: Final = "could not connect|connection refused|connection failed|no such file or directory"
SILENT_TEXT: Final = "timeout expired|timed out"
LOST_TEXT: Final = (
    "terminating connection|server closed the connection|connection reset|broken pipe|could not receive data"
    "|eof detected|unexpected eof|connection is (closed|lost)|connection (already|has been) closed"
    "|connection not open|no connection to the server|consuming input failed|sending query failed"
    "|could not send data|ssl syscall error"
)
"""Texts by libpq and other drivers, not by servers. They are in English, since Python sets no locale for messages."""


# Postgres


def sqlstate_of(error: BaseException) -> str:
    """The SQLSTATE that psycopg, psycopg2 or ADBC gives; empty if it gives none."""
    return str(getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or "")


def show_sqlstate(code: str) -> str:
    """``SQLSTATE 42703, UndefinedColumn``; without the name if Postgres has no name for it."""
    try:
        return f"SQLSTATE {code}, {psycopg.errors.lookup(code).__name__}"
    except KeyError:
        return f"SQLSTATE {code}"


POSTGRES_ERRORS: Final = ErrorTable(
    code_of=sqlstate_of,
    show=show_sqlstate,
    causes=(
        Cause(
            meaning=OPTION,
            text=r"invalid (uri query parameter|connection option|\w+ value:)|for connection option",
        ),
        Cause(meaning=TLS_FILE, text="(certificate|private key) file"),
        Cause(meaning=WRONG_PASSWORD, codes=("28P01",), text="password authentication failed"),
        Cause(meaning=NO_PASSWORD, text="no password supplied"),
        Cause(meaning=WRONG_IN_PG_HBA, codes=("28",), text="authentication failed"),
        Cause(meaning=NOT_IN_PG_HBA, codes=("28",), text="no pg_hba.conf entry"),
        Cause(meaning=DENIED, codes=("42501",), text="permission denied"),
        Cause(meaning=NO_LOGIN, codes=("28",), text="not permitted to log in"),
        Cause(meaning=NO_CONNECTION_LEFT, codes=("53300",), text="too many clients|connection slots"),
        Cause(meaning=NO_CONNECTION_FOR_ROLE, codes=("53300",), text="too many connections for role"),
        Cause(meaning=NO_CONNECTION_TO_DATABASE, codes=("53300",), text="too many connections for database"),
        Cause(meaning=NO_ROLE, codes=("28",), text='role "'),
        Cause(meaning=CLOSED_DATABASE, text="not currently accepting connections"),
        Cause(meaning=NO_DATABASE, codes=("3D000",), text='database "'),
        Cause(meaning=LOST, codes=("08P01",)),
        Cause(meaning=POOLER_REFUSES_OPTIONS, codes=("08P01",), text="unsupported startup parameter"),
        Cause(meaning=POOLED_STATEMENTS, codes=("08P01",), text="statement pooling mode"),
        Cause(meaning=POOL_IS_FULL, codes=("08P01",), text="query_wait_timeout"),
        Cause(meaning=POOLER_IS_FULL, codes=("08P01",), text="no more connections allowed"),
        Cause(meaning=NOT_IN_POOLER, codes=("08P01",), text="bouncer config error|no such database"),
        Cause(
            meaning=POOLER_WITHOUT_SERVER,
            codes=("08P01",),
            text="server login (has been )?fail|server_login_retry|cannot connect to server|server connect",
        ),
        Cause(
            meaning=ODD_SETTING,
            text="invalid value for parameter|unrecognized configuration parameter|invalid command-line argument",
        ),
        Cause(meaning=NO_HOST, text=NO_HOST_TEXT),
        Cause(meaning=NO_SCHEMA, codes=("3F000",), text="no schema has been selected"),
        Cause(meaning=READ_ONLY, codes=("25006",)),
        Cause(meaning=FULL_DISK, codes=("53100",), text="no space left|disk is full|disk full"),
        Cause(meaning=DEADLOCK, codes=("40P01",)),
        Cause(meaning=TOO_LONG, codes=("57014",), text="statement timeout"),
        Cause(meaning=CANCELLED, codes=("57014",), text="user request"),
        Cause(meaning=LOCKED, codes=("55P03",)),
        Cause(meaning=REPLICA_CONFLICT, codes=("40001",), text="conflict with recovery"),
        Cause(meaning=LOST, codes=("40001",), text="could not serialize access"),
        Cause(
            meaning=LOST,
            codes=("08", "57P"),
            text=f"{LOST_TEXT}|the database system is (starting up|shutting down|in recovery)|not yet accepting conn",
        ),
        # A server's answer begins with the severity, in the server's language, and two blanks.
        Cause(meaning=REFUSED_CONNECTION, text=r"connection to server .+ failed: [^\s:]+:  "),
        Cause(meaning=SILENT, text=SILENT_TEXT),
        Cause(meaning=UNREACHABLE, text=UNREACHABLE_TEXT),
    ),
)
