"""Loads the operator's SELECT, refuses what cannot be wrapped, and wraps it to read a window or a few tokens."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from token_pipelines.config import SQL_FILE
from token_pipelines.errors import ConfigError, SourceContractError, shown
from token_pipelines.source import sql_text
from token_pipelines.source.dialect import Dialect
from token_pipelines.text_files import UnreadableFileError, read_text

PRESETS: Final = Path(__file__).parent / "presets"

AFTER: Final = "expires_after"
BEFORE: Final = "expires_before"
TOKEN_IDS: Final = "token_ids"  # noqa: S105 -- no password
"""The binds of a statement. The operator writes the first two; the last is added where a few tokens are read."""

_LIMIT: Final = re.compile(r"\b(limit\s+[\w:(]|fetch\s+(first|next)\b|select\s+top\s*[\d(])", re.IGNORECASE)
_MARKER: Final = re.compile(r"/\*\s*token_ids\s*:\s*(.+?)\s*\*/", re.DOTALL)


def has_marker(query: str) -> bool:
    """Whether the query marks where the condition on ids belongs."""
    return _MARKER.search(query) is not None


@dataclass(frozen=True)
class Statement:
    """SQL with ``:name`` for each of its values, as SQLAlchemy's ``text`` reads it."""

    text: str
    values: Mapping[str, Any]
    keeps_odd_values: bool = False
    """To be run on a connection whose functions return a value that they cannot read, instead of null."""


def load(name: str, dialect: Dialect) -> str:
    """The text of a preset, or of the .sql file at a path, ready to be wrapped.

    Raises:
        ConfigError: if there is no such preset or file.
        SourceContractError: if the query lacks the binds, asks for others, or limits its rows.
    """
    if name.endswith(SQL_FILE):
        path = Path(name)
    else:
        path = PRESETS / f"{name}{SQL_FILE}"
        if not path.is_file():
            known = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.sql")))
            msg = f"source.query: {shown(name)} is not a preset; take one of {known}, or give the path of a .sql file."
            raise ConfigError(msg)
    try:
        query = read_text(path)
    except UnreadableFileError as error:
        msg = f"source.query: {path} {error}."
        raise ConfigError(msg) from None
    query = sql_text.one_statement(query, dialect, named=str(path), cure="keep one SELECT")
    _check(query, path, dialect)
    return sql_text.for_sqlalchemy(query, dialect)


def _check(query: str, path: Path, dialect: Dialect) -> None:
    missing = {AFTER, BEFORE} - sql_text.binds(query, dialect, named=str(path), known=(AFTER, BEFORE))
    if missing and sql_text.is_unclosed(query, dialect):
        msg = f"{path} has a quote or a comment that is not closed; close it."
        raise SourceContractError(msg)
    if missing:
        cure = f"filter with expires_at >= :{AFTER} AND expires_at < :{BEFORE}"
        msg = f"{path} does not use :{min(missing)}; {cure}."
        raise SourceContractError(msg)
    if _LIMIT.search(sql_text.outermost(sql_text.code(query, dialect))):
        msg = f"{path} limits its rows, so that tokens would be left out unnoticed; remove LIMIT or FETCH FIRST."
        raise SourceContractError(msg)


def wrap(
    query: str, columns: Sequence[str], bounds: Mapping[str, Any], token_ids: Sequence[str | int] | None = None
) -> Statement:
    """A SELECT of ``columns`` (SQL expressions) from the query; of these tokens only, where ids are given.

    Where the query holds a comment ``/* token_ids: expression */``, the condition on ids is put there too.
    """
    values = dict(bounds)
    if token_ids is not None:
        query = _MARKER.sub(lambda marker: f"AND ({marker[1]}) IN :{TOKEN_IDS}", query)
        values[TOKEN_IDS] = list(token_ids)
    wrapped = _select(query, columns)
    return Statement(f"{wrapped} WHERE token_id IN :{TOKEN_IDS}" if token_ids is not None else wrapped, values)


def wrap_nothing(query: str, columns: Sequence[str], bounds: Mapping[str, Any]) -> Statement:
    """The same SELECT without any row, to learn its columns."""
    return Statement(f"{_select(query, columns)} WHERE 1 = 0", bounds)


def first(
    query: str, columns: Sequence[str], bounds: Mapping[str, Any], where: str, *, keeps_odd_values: bool = False
) -> Statement:
    """One row of the same SELECT for which ``where`` is true. For databases that know LIMIT."""
    return Statement(f"{_select(query, columns)} WHERE {where} LIMIT 1", bounds, keeps_odd_values)


def _select(query: str, columns: Sequence[str]) -> str:
    """Without AS before the alias, which Oracle refuses; on lines of its own, since a query may end in a comment."""
    return f"SELECT {', '.join(columns)} FROM (\n{query}\n) source"  # noqa: S608 -- the operator's own query
