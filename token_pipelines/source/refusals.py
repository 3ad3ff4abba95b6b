"""What a database says against a statement: in its own words where these name things only, else by their code.

A message may quote a row's value; such words are never passed on. Whatever blames no statement (a login, a lock, a lost
connection) is database.py's matter to explain.
"""

import re
import sqlite3
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from sqlalchemy import URL

from token_pipelines.database import code_of, explain, is_known, is_option, may_pass, sqlstate_of, unreachable
from token_pipelines.errors import ConfigError, SourceContractError, SourceError

_MEND: Final = "mend source.query"
_TO_INSTANT: Final = (
    "make an instant of the column, with to_timestamp(…) of seconds since 1970, with CAST(… AS timestamptz) of text, "
    "in the WHERE of source.query as in its SELECT"
)


class Blame(Enum):
    """What is at fault."""

    STATEMENT = auto()
    VALUE = auto()
    UNSAID = auto()
    """The database's words may be anybody's: a function's own, or of a kind that we do not know."""


@dataclass(frozen=True)
class Refusal:
    """What is at fault, in words that hold no value."""

    blame: Blame
    words: str
    cure: str = _MEND


def refusal(error: BaseException) -> Refusal | None:
    """What the database says against the statement; None where that is not what is wrong."""
    if isinstance(error, sqlite3.Error):
        return _of_sqlite(error)
    if error.args and isinstance(error.args[0], int) and not isinstance(error, OSError):
        return _of_mysql(error, error.args[0])
    return _of_postgres(error)


def explained(error: BaseException, url: URL, key: str) -> ConfigError | SourceError:
    """The error to raise for what the database of ``key`` answered to the source query."""
    found = refusal(error)
    if found is None:
        said = explain(error, url, key)
        if is_option(error):
            return ConfigError(said)
        return SourceError(said, may_pass=may_pass(error), unreachable=unreachable(error))
    match found.blame:
        case Blame.STATEMENT:
            msg = f"The source query is not accepted by the database: {found.words}; {found.cure}."
            return SourceContractError(msg)
        case Blame.VALUE:
            cure = "leave such rows out in SQL, or mend the cast or the calculation in source.query"
            return SourceError(f"The source query failed on a row's value ({found.words}); {cure}.")
        case Blame.UNSAID:
            cure = "look into its log, or run the query by hand, and mend it"
            msg = f"The source query failed in the database, whose words may hold a value ({found.words}); {cure}."
            return SourceError(msg)


def safe_words(error: BaseException) -> str:
    """What the database says, where that repeats no value; else only which kind of error it is."""
    found = refusal(error)
    if found is not None:
        return found.words
    if isinstance(error, sqlite3.Error):
        is_of_names = isinstance(error, sqlite3.OperationalError)
    elif error.args and isinstance(error.args[0], int):
        is_of_names = error.args[0] in _RIGHTS_AND_LOCKS
    else:
        is_of_names = sqlstate_of(error)[:2] in _STATES_OF_NAMES
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    return str(primary or error.args[-1]) if is_of_names else code_of(error)


_RIGHTS_AND_LOCKS: Final = {1142, 1143, 1205, 1290}
_STATES_OF_NAMES: Final = {"40", "42", "53", "55", "57"}
"""What blames no statement and names tables, rights and locks, and no value: of MySQL, of Postgres."""


# Postgres


_SAYS: Final = re.compile(r"ERROR:\s*(.+)")
_BLAMES: Final = {"0A", "21", "25", "26", "2B", "3F", "42"}
"""Classes of SQLSTATE that blame the statement, and name identifiers only."""

_DENIED: Final = "42501"
_NO_OPERATOR: Final = "42883"
_OF_VALUES: Final = "22"
_UNSAID: Final = {"23", "2F", "38", "39", "HV", "P0"}
"""Of constraints, of other servers, of functions and their own words."""

_STATEMENT_WORDS: Final = re.compile(
    r"more than one row returned by a subquery used as an expression|cannot execute [\w ()]+ in a read-only transaction"
)
_VALUE_WORDS: Final = re.compile(
    r"invalid input syntax for type [a-z ]+|division by zero|[a-z ]+ out of range|numeric field overflow"
    r"|invalid input value for enum \w+|cannot take [a-z ]+ of a negative number|negative substring length not allowed"
)
"""How messages begin that come without their SQLSTATE, as ADBC gives them for what happens while rows are fetched."""


def _of_postgres(error: BaseException) -> Refusal | None:
    sqlstate = sqlstate_of(error)
    said = _SAYS.search(str(error))
    words = getattr(getattr(error, "diag", None), "message_primary", None) or (said[1].strip() if said else "")
    if not sqlstate:
        return _by_words(error, words) if said else None
    if sqlstate == _DENIED:
        return None
    if sqlstate[:2] in _BLAMES and words:
        is_instant = sqlstate == _NO_OPERATOR and "timestamp" in words
        return Refusal(Blame.STATEMENT, words, _TO_INSTANT if is_instant else _MEND)
    if sqlstate[:2] == _OF_VALUES:
        return Refusal(Blame.VALUE, code_of(error))
    return Refusal(Blame.UNSAID, code_of(error)) if sqlstate[:2] in _UNSAID else None


def _by_words(error: BaseException, words: str) -> Refusal | None:
    for blame, pattern in ((Blame.STATEMENT, _STATEMENT_WORDS), (Blame.VALUE, _VALUE_WORDS)):
        safe = pattern.match(words)
        if safe is not None:
            return Refusal(blame, safe[0])
    return None if is_known(error) else Refusal(Blame.UNSAID, "without an SQLSTATE")


# MariaDB and MySQL


_NAMES: Final = {
    *(1051, 1052, 1054, 1055, 1056, 1060, 1064, 1066, 1109, 1111, 1140, 1146, 1221, 1222, 1241, 1242, 1247, 1248),
    *(1250, 1267, 1271, 1305, 1318, 1356, 1463, 1582, 1630, 1792, 4015, 4016, 4078),
}
"""Errors that blame the statement: what is not known, not unique or not in its place. They name identifiers only."""

_ITS_VALUES: Final = {1264, 1265, 1292, 1365, 1366, 1406, 1411, 1525, 1690, 3140, 3141, 4037, 4038}
_SERVERS: Final = (range(1000, 2000), range(3000, 6000))
"""Codes of the server's own errors; those of the 2000s are the client's."""

_QUOTED_QUERY: Final = re.compile(r"near '.*' at line", re.DOTALL)
"""MySQL repeats the rest of the statement there."""


def _of_mysql(error: BaseException, code: int) -> Refusal | None:
    if code in _NAMES:
        words = _QUOTED_QUERY.sub("at line", str(error.args[-1]))
        return Refusal(Blame.STATEMENT, " ".join(words.split()))
    if code in _ITS_VALUES:
        return Refusal(Blame.VALUE, code_of(error))
    ours = not is_known(error) and any(code in codes for codes in _SERVERS)
    return Refusal(Blame.UNSAID, code_of(error)) if ours else None


# SQLite


_ANY_ERROR: Final = 1
"""SQLITE_ERROR: of the statement. Locks, files and disks have codes of their own."""

_SQLITE_WORDS: Final = re.compile(
    r"no such|near \".*\": syntax error|incomplete input|ambiguous column|wrong number of arg|misuse of|row value mis"
    r"|aggregate functions are not|SELECTs to the left|\d\w\w (ORDER|GROUP) BY term|sub-select returns|integer overflow"
    r"|unable to use function|no query solution|duplicate WITH|HAVING clause|a GROUP BY clause|too many|circular ref"
    r"|cannot join|a JOIN clause|table .* has \d+|only a single|all VALUES|malformed JSON|DISTINCT aggregates|FILTER"
    r"|You can only execute one statement"
)
_TOKEN: Final = re.compile(r"unrecognized token: \"(.)", re.DOTALL)


def _of_sqlite(error: sqlite3.Error) -> Refusal | None:
    text = str(error)
    token = _TOKEN.match(text)
    if token is not None:  # the rest of the query is repeated there
        words = "a quote is not closed" if token[1] in "'\"`[" else "a character has no meaning in SQL"
        return Refusal(Blame.STATEMENT, words)
    if _SQLITE_WORDS.match(text):
        return Refusal(Blame.STATEMENT, " ".join(text.split()))
    code = getattr(error, "sqlite_errorcode", _ANY_ERROR)
    return Refusal(Blame.UNSAID, code_of(error)) if code == _ANY_ERROR and not is_known(error) else None
