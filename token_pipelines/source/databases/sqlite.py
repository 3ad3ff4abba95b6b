"""SQLite: a file, opened only where it exists; instants are text, and a column may hold values of any type."""

import re
import sqlite3
import sys
import unicodedata
from collections.abc import Collection, Sequence
from typing import Any, Final
from urllib.parse import quote

import pyarrow as pa
from sqlalchemy import URL, Connection

from token_pipelines import database_errors as meanings
from token_pipelines.database_errors import Cause, ErrorTable, Meaning
from token_pipelines.source.contract import KINDS
from token_pipelines.source.databases import sqlite_functions
from token_pipelines.source.databases.generic import Generic
from token_pipelines.source.dialect import TEXT_AT_MOST, Dialect
from token_pipelines.source.refusals import Blame, Refusal
from token_pipelines.source.session import Session
from token_pipelines.token_facts import Kind

_DATE: Final = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"


def _digits(first: int, last: int) -> str:
    """For GLOB: these digits of every script."""
    zeros = (code for code in range(sys.maxunicode) if unicodedata.decimal(chr(code), None) == 0)
    return "[" + "".join(f"{chr(zero + first)}-{chr(zero + last)}" for zero in zeros) + "]"


_SIX_DIGITS: Final = f"*{_digits(0, 9)}" * 6 + "*"
_THREE_DIGITS: Final = f"*{_digits(0, 9)}" * 3 + "*"
_LIMITED: Final = f"*{_digits(1, 8)}*"
"""For GLOB. A text with fewer digits, or with few and none but 0 and 9, is no instant but a word for never (9999),
as 0 and -1 are among numbers."""

_MISREAD: Final = f"""(
            expires_at >= x'' OR expires_at > 0 AND expires_at < ''
            OR expires_at > '' AND (
                length(expires_at) = 0  -- it begins with a NUL
                OR expires_at NOT GLOB '{_DATE}*' AND (
                    expires_at GLOB '{_SIX_DIGITS}'
                    OR expires_at GLOB '{_THREE_DIGITS}' AND expires_at GLOB '{_LIMITED}'
                )
            )
        )"""
"""Numbers are below any text, blobs above; typeof() would say it too, but its calls take three times as long."""

_NO_TEXT: Final = b"\xff"
"""Begins what stands for a blob among ids that are text. No text has this octet, so the row counts as unreadable."""

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

_OF_A_ROW: Final = ("malformed JSON", "integer overflow")
"""Messages that a row's value can cause, or the statement itself."""

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
        # Only where it is long: text ends at a NUL for substr(), and an address would become another.
        shortened=f"CASE WHEN length(CAST({{name}} AS BLOB)) > {4 * TEXT_AT_MOST} "
        f"THEN substr({{name}}, 1, {TEXT_AT_MOST}) ELSE {{name}} END AS {{name}}",
        widest=((-(2**62), b"\xff" * 16), ("0000-01-01 00:00:00", "9999-12-31 23:59:59")),
        misread=_MISREAD,
        calls=sqlite_functions.CALLS,
        passed_over=f"""({_MISREAD} OR expires_at GLOB '{_DATE}*' AND expires_at NOT LIKE '0000-%'
            AND {sqlite_functions.IS_NULL}(expires_at))""",
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
        file = (url.database or "").removeprefix("file:")
        mode = {"mode": "ro" if read_only else "rw", "uri": "true"}
        return url.set(database=f"file:{quote(file)}").update_query_dict(mode)

    def connect_arguments(self, url: URL, session: Session) -> dict[str, Any]:  # noqa: ARG002 -- as Database says
        """See Database. How long to wait for a lock."""
        return {"timeout": session.lock_timeout.total_seconds()}

    def array(self, name: str, kind: pa.DataType | None, values: Sequence[Any]) -> pa.Array:
        """See Database. Any row may hold a blob or a number where the others hold text."""
        kinds = {type(value) for value in values if value is not None}
        if KINDS.get(name) in (Kind.TEXT, Kind.SCOPES) or kinds == {str}:
            return _text_array([_octets(value) for value in values])
        if KINDS.get(name) is Kind.ID and len(kinds) > 1 and kinds <= {bytes, int, str}:
            return _text_array([_NO_TEXT + each if isinstance(each, bytes) else _octets(each) for each in values])
        return super().array(name, kind, values)

    def settings(self, connection: Connection, session: Session) -> list[str]:
        """See Database."""
        driver: Any = connection.connection.driver_connection
        # By itself the driver fails where text is no UTF-8, with all rows.
        driver.text_factory = lambda octets: octets.decode("utf-8", "surrogateescape")
        return ["PRAGMA query_only = ON"] if session.read_only else []

    def keep_odd_values(self, connection: Connection) -> None:
        """See Database."""
        driver: Any = connection.connection.driver_connection
        sqlite_functions.keep_odd_values(driver)

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
            return Refusal(Blame.STATEMENT, " ".join(said.split()), of_a_row=said in _OF_A_ROW)
        unknown = isinstance(error, sqlite3.Error) and code_of(error) in ("", _ANY_ERROR)
        return Refusal(Blame.UNKNOWN, self.errors.shown_code(error)) if unknown else None

    def names_only(self, error: BaseException) -> bool:
        """See Database."""
        return isinstance(error, sqlite3.OperationalError)


def _octets(value: object) -> bytes | None:
    """A value as text in UTF-8, or what it has instead."""
    if value is None or isinstance(value, bytes):
        return value
    return str(value).encode("utf-8", "surrogateescape")


def _text_array(octets: Sequence[bytes | None]) -> pa.Array:
    """Text that need not be UTF-8, as other readers give it: `source.readable` looks."""
    return pa.array(octets, pa.binary()).view(pa.string())


SQLITE: Final = Sqlite()
