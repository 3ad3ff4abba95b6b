"""Tells the code of an operator's SQL from its comments and strings, finds binds, and where a statement ends.

Shared by `query` and `on_sent`. Knows no table and opens nothing.
"""

import re
from collections.abc import Iterator
from typing import Final

from token_pipelines.errors import SourceContractError
from token_pipelines.source.dialect import Dialect

_NOT_CODE: Final = r"""
    (?P<comment>--[^\n]*|/\*.*?\*/)
    |(?P<quoted>[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
"""
_NOT_MYSQL_CODE: Final = r"""
    (?P<comment>--(?=\s|\Z)[^\n]*|\#[^\n]*|/\*.*?\*/)
    |(?P<quoted>'(?:[^'\\]|''|\\.)*'|"(?:[^"\\]|""|\\.)*"|`[^`]*`)
"""
_WORDS: Final = {
    False: re.compile(_NOT_CODE, re.DOTALL | re.VERBOSE),
    True: re.compile(_NOT_MYSQL_CODE, re.DOTALL | re.VERBOSE),
}
"""Comments and quoted text, by whether the dialect is MySQL's, where a backslash escapes a quote and 5--1 is 6.

sqlglot's tokenizer was tried instead (version 30.30). It reads all of this, and nested comments of Postgres too. But it
would replace these two patterns only, since SQLAlchemy decides what is a bind; it raises where a quote is not closed,
which `is_unclosed` explains; it takes 25 times as long, and 8 MB.
"""

_BIND: Final = re.compile(r"(?<![:\w\\]):([\w$]+)(?![\w$]|:(?!:))")
_CAST: Final = re.compile(_BIND.pattern + "(?=::)")
_SQLALCHEMYS_BIND: Final = re.compile(r"(?<![:\w\\]):([\w$]+)(?![:\w$])")
"""A bind as operators write it, a cast of Postgres may follow; and as SQLAlchemy's ``text`` finds it, without one."""

_BEGINNINGS: Final = re.compile(r"['\"`]|/\*")

_OPERAND: Final = re.compile(r"(^|\b(union|except|intersect|minus)(\s+(all|distinct))?)\s*$", re.IGNORECASE)
"""What precedes a parenthesis around a part of the query itself, not around a sub-select."""


def code(sql: str, dialect: Dialect) -> str:
    """The SQL with a blank for each comment and '' for each quoted text."""
    return _WORDS[dialect.backslashes].sub(lambda found: " " if found["comment"] else "''", sql)


def outermost(code_only: str) -> str:
    """The code outside every sub-select. Parentheses around the whole, or a part of a UNION, are no sub-select."""
    shown: list[str] = []
    hidden = [False]
    for piece in re.split(r"([()])", code_only):
        if piece == "(":
            hidden.append(hidden[-1] or _OPERAND.search("".join(shown)) is None)
            shown += ["()"] if hidden[-1] else []
        elif piece == ")":
            hidden = hidden[:-1] or [False]  # the database reports one too many
        elif not hidden[-1]:
            shown.append(piece)
    return "".join(shown)


def one_statement(sql: str, dialect: Dialect, *, named: str, cure: str) -> str:
    """The statement without the semicolon at its end, which comments may follow.

    Raises:
        SourceContractError: if there is more than one statement.
    """
    if ";" in code(sql, dialect).rstrip("; \t\r\n"):
        msg = f"{named} holds more than one statement; {cure}."
        raise SourceContractError(msg)
    return "".join(text.replace(";", "") if is_code else text for is_code, text in _pieces(sql, dialect)).strip()


def binds(sql: str, dialect: Dialect, *, named: str, known: tuple[str, str]) -> set[str]:
    """The names of the binds in the SQL.

    Raises:
        SourceContractError: if one is not among the two ``known`` ones.
    """
    asked = {found[1] for found in _BIND.finditer(code(sql, dialect))}
    unknown = asked - set(known)
    if unknown:
        first, second = known
        msg = f"{named} asks for :{min(unknown)}; the only binds are :{first} and :{second} (write \\: for a colon)."
        raise SourceContractError(msg)
    return asked


def is_unclosed(sql: str, dialect: Dialect) -> bool:
    """Whether a quote or a comment seems to be never closed, so that the rest of the SQL would be part of it."""
    return any(is_code and _BEGINNINGS.search(text) for is_code, text in _pieces(sql, dialect))


def for_sqlalchemy(sql: str, dialect: Dialect) -> str:
    """The SQL for ``text``: a ``:name`` in a comment or in quotes is no bind, and one before a cast is."""
    return "".join(
        _CAST.sub(r":\1 ", text) if is_code else _SQLALCHEMYS_BIND.sub(r"\\:\1", text)
        for is_code, text in _pieces(sql, dialect)
    )


def _pieces(sql: str, dialect: Dialect) -> Iterator[tuple[bool, str]]:
    """Code, then a comment or quoted text, in turn: whether a piece is code, and the piece."""
    end = 0
    for found in _WORDS[dialect.backslashes].finditer(sql):
        yield True, sql[end : found.start()]
        yield False, found[0]
        end = found.end()
    yield True, sql[end:]
