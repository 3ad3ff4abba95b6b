"""The operator's SELECT: found, checked for what cannot be wrapped, and wrapped for reading all or a few tokens."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from psycopg import sql
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from token_pipelines.errors import ConfigError, SourceContractError
from token_pipelines.policy import Window

PRESETS: Final = Path(__file__).parent / "presets"

_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_LIMIT: Final = re.compile(r"\b(limit\s+[\w:(]|fetch\s+(first|next)\b)", re.IGNORECASE)
_BIND: Final = re.compile(r"(?<![:\w]):(expires_after|expires_before)\b")


def load(name: str, folder: Path) -> str:
    """The text of a preset, or of the .sql file at a path relative to ``folder``, ready to be wrapped.

    Raises:
        ConfigError: if there is no such preset or file.
        SourceContractError: if the query lacks the binds, or limits its rows.
    """
    if name.endswith(".sql"):
        path = folder / name
    else:
        path = PRESETS / f"{name}.sql"
        if not path.is_file():
            known = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.sql")))
            msg = f"source.query: {name!r} is not a preset; take one of {known}, or give the path of a .sql file."
            raise ConfigError(msg)
    try:
        query = path.read_text(encoding="utf-8").strip().rstrip(";").rstrip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"source.query: {path} cannot be read ({type(error).__name__}); check the path and its permissions."
        raise ConfigError(msg) from None
    _check(query, path)
    return query


def _check(query: str, path: Path) -> None:
    bare = _COMMENT.sub(" ", query)
    missing = {"expires_after", "expires_before"} - {found[1] for found in _BIND.finditer(bare)}
    if missing:
        cure = "filter with expires_at >= :expires_after AND expires_at < :expires_before"
        msg = f"{path} does not use :{min(missing)}; {cure}."
        raise SourceContractError(msg)
    if _LIMIT.search(bare):
        msg = f"{path} limits its rows, so that tokens would be left out in silence; remove LIMIT or FETCH FIRST."
        raise SourceContractError(msg)


def bind(query: str, window: Window) -> str:
    """The query with the window's instants written into it; binds of a driver's own run slower here.

    Raises:
        SourceContractError: if the query asks for a bind that we do not know.
    """
    values = {
        "expires_after": sql.Literal(window.expires_after).as_string(),
        "expires_before": sql.Literal(window.expires_before).as_string(),
    }
    compiled = text(query).compile(dialect=PGDialect_psycopg())  # type: ignore[no-untyped-call]
    unknown = set(compiled.params) - set(values)
    if unknown:
        msg = f"The source query asks for :{min(unknown)}; the only binds are :expires_after and :expires_before."
        raise SourceContractError(msg)
    return str(compiled) % values


def wrap(bound: str, columns: Sequence[str], token_ids: Collection[str] | None = None) -> str:
    """A SELECT of ``columns`` (SQL expressions) from a bound query; of these tokens only, where ids are given.

    Ids are written as untyped literals, which Postgres reads in the column's own type: an index is used.
    """
    wrapped = f"SELECT {', '.join(columns)} FROM (\n{bound}\n) AS source"  # noqa: S608 -- the operator's own query
    if token_ids is None:
        return wrapped
    listed = ", ".join(sql.Literal(token_id).as_string() for token_id in token_ids)
    return f"{wrapped} WHERE token_id IN ({listed})"
