"""SQLite: a file, opened only where it exists; instants are text, and a column may hold values of any type."""

import re
import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, Final
from urllib.parse import quote

from sqlalchemy import URL, Connection

from token_pipelines import database_errors as meanings
from token_pipelines.database_errors import Cause, ErrorTable, Meaning
from token_pipelines.source.databases.generic import Generic
from token_pipelines.source.dialect import Dialect
from token_pipelines.source.refusals import Blame, Refusal
from token_pipelines.source.session import Session

_DATE: Final = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"
_SIX_DIGITS: Final = "*[0-9]" * 6 + "*"
"""For GLOB. With fewer digits a text is no instant but a word for never, as 0 and -1 are among numbers."""

_ANY_ERROR: Final = "SQLITE_ERROR"
"""Of the statement. Locks, files and disks have names of their own."""

_WORDS: Final = re.compile(
    r"no such|near \".*\": syntax error|incomplete input|ambiguous column|wrong number of arg|misuse of|row value mis"
    r"|aggregate functions are not|SELECTs to the left|\d\w\w (ORDER|GROUP) BY term|sub-select returns|integer overflow"
    r"|unable to use function|no query solution|duplicate WITH|HAVING clause|a GROUP BY clause|too many|circular ref"
    r"|cannot join|a JOIN clause|table .* has \d+|only a single|all VALUES|malformed JSON|DISTINCT aggregates|FILTER"
    r"|You can only execute one statement"
)
"""How messages begin that name identifiers only: the code says no more. SQLite writes English only."""

_TOKEN: Final = re.compile(r"unrecognized token: \"(.)", re.DOTALL)


def code_of(error: BaseException) -> str:
    """The error's name, such as SQLITE_BUSY. Errors of Python's own module have none."""
    return str(getattr(error, "sqlite_errorname", ""))


class Sqlite(Generic):
    """SQLite."""

    backends = ("sqlite",)
    dialect = Dialect(
        name="SQLite",
        from_epoch="(datetime({name}, 'unixepoch') || 'Z')",
        from_date="({name} || ' 00:00:00Z')",
        from_text="(datetime({name}) || 'Z')",
        without_extremes="CASE WHEN {name} BETWEEN '0001' AND '9999-13' THEN {name} END",
        other_numbers="divide milliseconds by 1000, and of a Julian day write (datetime({name}) || 'Z')",
        text_instants=True,
        untyped_columns=True,
        probe_each_run=True,  # two thirds of a snapshot's time; without it, people are left out and nothing says so
        integers=range(-(2**63), 2**63),
        widest=((-(2**62), b"\xff" * 16), ("0000-01-01 00:00:00", "9999-12-31 23:59:59")),
        # Numbers are below any text, blobs above; typeof() would say it too, but its calls take three times as long.
        misread=f"""(
            expires_at >= x'' OR expires_at > 0 AND expires_at < ''
            OR expires_at >= '' AND expires_at NOT GLOB '{_DATE}*' AND expires_at GLOB '{_SIX_DIGITS}'
        )""",
        readable=f"(expires_at GLOB '{_DATE}[T ]*' AND expires_at BETWEEN '1971' AND '9000')",
        explain="EXPLAIN QUERY PLAN",
    )
    errors = ErrorTable(
        code_of=code_of,
        show=str,
        causes=(
            Cause(
                meaning=Meaning(says="cannot be opened", cure="check the path in the URL and the file's permissions"),
                codes=("SQLITE_CANTOPEN",),
            ),
            Cause(
                meaning=Meaning(says="is no SQLite file, or encrypted", cure="check the path in the URL"),
                codes=("SQLITE_NOTADB",),
            ),
            Cause(
                meaning=Meaning(says="cannot be read as a file", cure="check the path in the URL, and the disk"),
                codes=("SQLITE_IOERR",),
            ),
            Cause(
                meaning=Meaning(says="is damaged", cure="restore it from a copy"),
                codes=("SQLITE_CORRUPT",),
            ),
            Cause(
                meaning=Meaning(
                    says="waited too long for a lock", cure="run again when what writes to it has finished"
                ),
                codes=("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL"),
            ),
            Cause(meaning=meanings.FULL_DISK, codes=("SQLITE_FULL",)),
            Cause(meaning=meanings.DENIED, codes=("SQLITE_AUTH", "SQLITE_PERM")),
        ),
    )

    def engine_url(self, url: URL, *, read_only: bool) -> URL:
        """See Database. With the mode a wrong path is an error, and makes no empty database."""
        if not url.database and not read_only:
            return url
        file = (url.database or "").removeprefix("file:").partition("?")[0]
        mode = {"mode": "ro" if read_only else "rw", "uri": "true"}
        return url.set(database=f"file:{quote(file)}").update_query_dict(mode)

    def connect_arguments(self, url: URL, session: Session) -> dict[str, Any]:  # noqa: ARG002 -- as Database says
        """See Database. How long to wait for a lock."""
        return {"timeout": session.lock_timeout.total_seconds()}

    def settings(self, connection: Connection, session: Session) -> list[str]:  # noqa: ARG002 -- as Database says
        """See Database."""
        return ["PRAGMA query_only = ON"] if session.read_only else []

    def reaches_tables(self, plan: Sequence[str], token_ids: Collection[str]) -> bool | None:  # noqa: ARG002 -- as Database says
        """See Database."""
        return not any(re.search(r"\b(SCAN|SEARCH) source\b", line) for line in plan)

    def refusal(self, error: BaseException) -> Refusal | None:
        """See Database."""
        said = str(error)
        token = _TOKEN.match(said)
        if token is not None:  # the rest of the query is repeated there
            words = "a quote is not closed" if token[1] in "'\"`[" else "a character has no meaning in SQL"
            return Refusal(Blame.STATEMENT, words)
        if _WORDS.match(said):
            return Refusal(Blame.STATEMENT, " ".join(said.split()))
        unknown = isinstance(error, sqlite3.Error) and code_of(error) in ("", _ANY_ERROR)
        return Refusal(Blame.UNKNOWN, self.errors.shown_code(error)) if unknown else None

    def names_only(self, error: BaseException) -> bool:
        """See Database."""
        return isinstance(error, sqlite3.OperationalError)


SQLITE: Final = Sqlite()
