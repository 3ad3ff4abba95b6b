"""SQL as an operator writes it: what of it is code, which colons are binds, where a statement ends.

Shared by the query and by what is run after sending. Knows no table and opens nothing.
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
"""Comments and quoted text, by whether the dialect is MySQL's, where a backslash escapes a quote and 5--1 is 6."""

_BIND: Final = re.compile(r"(?<![:\w\\]):([\w$]+)(?![\w$]|:(?!:))")
_CAST: Final = re.compile(_BIND.pattern + "(?=::)")
_SQLALCHEMYS_BIND: Final = re.compile(r"(?<![:\w\\]):([\w$]+)(?![:\w$])")
"""A bind as operators write it, with Postgres' cast behind it too, and as SQLAlchemy's ``text`` finds it, without."""

_BEGINNINGS: Final = re.compile(r"['\"`]|/\*")

_OPERAND: Final = re.compile(r"(^|\b(union|except|intersect|minus)(\s+(all|distinct))?)\s*$", re.IGNORECASE)
"""What stands before a parenthesis that holds a part of the query itself, and no sub-select."""


def code(sql: str, dialect: Dialect) -> str:
    """The SQL with a blank for each comment and '' for each quoted text."""
    return _WORDS[dialect.backslashes].sub(lambda found: " " if found["comment"] else "''", sql)


def outermost(code_only: str) -> str:
    """What of some code is in no sub-select; parentheses around the whole, or around a part of a UNION, are none."""
    shown: list[str] = []
    hidden = [False]
    for piece in re.split(r"([()])", code_only):
        if piece == "(":
            hidden.append(hidden[-1] or _OPERAND.search("".join(shown)) is None)
            shown += ["()"] if hidden[-1] else []
        elif piece == ")":
            hidden = hidden[:-1] or [False]  # one too many is the database's to tell
        elif not hidden[-1]:
            shown.append(piece)
    return "".join(shown)


def one_statement(sql: str, dialect: Dialect, *, named: str, cure: str) -> str:
    """The statement without the semicolon at its end, comments behind it or not.

    Raises:
        SourceContractError: if there is another one.
    """
    if ";" in code(sql, dialect).rstrip("; \t\r\n"):
        msg = f"{named} holds more than one statement; {cure}."
        raise SourceContractError(msg)
    return "".join(text.replace(";", "") if is_code else text for is_code, text in _pieces(sql, dialect)).strip()


def binds(sql: str, dialect: Dialect, *, named: str, known: tuple[str, str]) -> set[str]:
    """The names of the binds that are asked for.

    Raises:
        SourceContractError: if one is none of the two that there are.
    """
    asked = {found[1] for found in _BIND.finditer(code(sql, dialect))}
    unknown = asked - set(known)
    if unknown:
        first, second = known
        msg = f"{named} asks for :{min(unknown)}; the only binds are :{first} and :{second} (write \\: for a colon)."
        raise SourceContractError(msg)
    return asked


def is_unclosed(sql: str, dialect: Dialect) -> bool:
    """Whether a quote or a comment seems to have no end, so that the rest is not what it looks like."""
    return any(is_code and _BEGINNINGS.search(text) for is_code, text in _pieces(sql, dialect))


def for_sqlalchemy(sql: str, dialect: Dialect) -> str:
    """The same for ``text``: a ``:name`` in a comment or in quotes is no bind, and one with a cast behind it is."""
    return "".join(
        _CAST.sub(r":\1 ", text) if is_code else _SQLALCHEMYS_BIND.sub(r"\\:\1", text)
        for is_code, text in _pieces(sql, dialect)
    )


def _pieces(sql: str, dialect: Dialect) -> Iterator[tuple[bool, str]]:
    """Code and what is none, in turn."""
    end = 0
    for found in _WORDS[dialect.backslashes].finditer(sql):
        yield True, sql[end : found.start()]
        yield False, found[0]
        end = found.end()
    yield True, sql[end:]
