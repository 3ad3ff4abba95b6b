"""The text of a query: which colons are binds, which LIMIT is one, where the ids belong."""

# ruff: noqa: S608 -- a test's own queries, which nothing runs

from pathlib import Path

import pyarrow as pa
import pytest
from sqlalchemy import text

from token_pipelines.errors import SourceContractError
from token_pipelines.source import query
from token_pipelines.source.databases import mysql, postgres, sqlite
from token_pipelines.source.dialect import Dialect

MYSQL, POSTGRES, SQLITE = mysql.MYSQL.dialect, postgres.POSTGRES.dialect, sqlite.SQLITE.dialect

BETWEEN = "WHERE ends >= :expires_after AND ends < :expires_before"


def load(folder: Path, written: str, dialect: Dialect = POSTGRES) -> str:
    (folder / "tokens.sql").write_text(written, encoding="utf-8")
    return query.load(str(folder / "tokens.sql"), dialect)


def binds(written: str) -> set[str]:
    """What SQLAlchemy takes for a bind."""
    return set(text(written).compile().params)


@pytest.mark.parametrize(
    "odd",
    [
        "'10:30 :noon'",
        "'it''s :noon'",
        '"a :column"',
        "E'it\\'s :noon'",
        "$$ :noon $$",
        "$tag$ :noon $tag$",
        "x /* :noon */",
        "x -- :noon\n",
        "x::text",
        r"'\:noon'",
        r"x LIKE '!\' ESCAPE '\' AND ':noon' = y",
    ],
)
def test_colon_in_quotes_or_comments_is_no_bind(tmp_path: Path, odd: str) -> None:
    assert binds(load(tmp_path, f"SELECT {odd} AS x FROM t {BETWEEN}")) == {"expires_after", "expires_before"}


@pytest.mark.parametrize("odd", [r"'it\'s :noon'", r'"it\"s :noon"', "`a :column`", "x # :noon\n"])
def test_colon_in_quotes_or_comments_of_mysql_is_no_bind(tmp_path: Path, odd: str) -> None:
    written = load(tmp_path, f"SELECT {odd} AS x FROM t {BETWEEN}", MYSQL)
    assert binds(written) == {"expires_after", "expires_before"}


def test_bind_with_a_cast_of_postgres_is_one(tmp_path: Path) -> None:
    between = "WHERE ends >= :expires_after::timestamptz AND ends < (:expires_before)::date"
    written = load(tmp_path, f"SELECT ':noon::text' AS x, y::text FROM t {between}")
    assert binds(written) == {"expires_after", "expires_before"}
    assert "':noon::text'" in str(text(written))


def test_two_minus_signs_of_mysql_need_a_blank_to_be_a_comment(tmp_path: Path) -> None:
    written = f"SELECT 5--1 AS x, y --\n FROM t {BETWEEN} AND z < 7--:expires_after"
    assert binds(load(tmp_path, written, MYSQL)) == {"expires_after", "expires_before"}
    with pytest.raises(SourceContractError, match="limits its rows"):
        load(tmp_path, f"SELECT x FROM t {BETWEEN} AND z < 7--1 LIMIT 5", MYSQL)
    assert load(tmp_path, f"SELECT x FROM t {BETWEEN} -- LIMIT 5", MYSQL) is not None


@pytest.mark.parametrize("limit", ["LIMIT 10", "FETCH FIRST 10 ROWS ONLY", "limit :expires_after"])
def test_limit_is_refused(tmp_path: Path, limit: str) -> None:
    with pytest.raises(SourceContractError, match="limits its rows"):
        load(tmp_path, f"SELECT x FROM t {BETWEEN} {limit}")


def test_top_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceContractError, match="limits its rows"):
        load(tmp_path, f"SELECT TOP 10 x FROM t {BETWEEN}")


@pytest.mark.parametrize(
    "inner",
    [
        "(SELECT mail FROM mails WHERE mails.who = t.who ORDER BY at LIMIT 1)",
        "(SELECT min(mail) FROM (SELECT mail FROM mails ORDER BY at FETCH FIRST 1 ROW ONLY) AS few)",
        "(SELECT TOP 1 mail FROM mails)",
    ],
)
def test_limit_of_a_sub_select_is_its_own_matter(tmp_path: Path, inner: str) -> None:
    """The usual way to pick one address of several."""
    assert load(tmp_path, f"SELECT {inner} AS email FROM t {BETWEEN}") is not None
    assert load(tmp_path, f"SELECT email FROM t CROSS JOIN LATERAL {inner} AS one {BETWEEN}") is not None


@pytest.mark.parametrize(
    "whole",
    [
        "(SELECT x FROM t {0} LIMIT 10)",
        "((SELECT x FROM t {0} LIMIT 10))",
        "(SELECT x FROM t {0}) UNION ALL (SELECT x FROM u {0} LIMIT 10)",
        "SELECT (x) FROM t {0} AND y IN (1) LIMIT 10",
        "SELECT ')' AS x FROM t {0} LIMIT 10",
        "WITH t AS (SELECT 1) SELECT x FROM t {0} LIMIT 10",
    ],
)
def test_limit_of_the_query_itself_is_refused_in_parentheses_too(tmp_path: Path, whole: str) -> None:
    with pytest.raises(SourceContractError, match="limits its rows"):
        load(tmp_path, whole.format(BETWEEN))


def test_semicolon_at_the_end_is_left_out_and_a_second_statement_refused(tmp_path: Path) -> None:
    written = f"SELECT ';' AS x FROM t {BETWEEN}"
    assert load(tmp_path, f"{written} ; -- the end;\n;") == f"{written}  -- the end;"
    with pytest.raises(SourceContractError, match=r"tokens.sql holds more than one statement; keep one"):
        load(tmp_path, f"SET x = 1; {written}")


def test_limit_in_quotes_or_comments_is_none(tmp_path: Path) -> None:
    assert load(tmp_path, f"SELECT 'limit 10' AS x -- LIMIT 10\nFROM t {BETWEEN} ;") is not None


def test_ids_are_asked_for_outside_and_where_the_query_says(tmp_path: Path) -> None:
    written = load(tmp_path, f"SELECT x FROM t {BETWEEN} /* token_ids: coalesce(t.id, t.old) */")
    few = query.wrap(written, ["token_id"], {"expires_after": 1, "expires_before": 2}, ["5"])
    assert few.text == (
        f"SELECT token_id FROM (\nSELECT x FROM t {BETWEEN} AND (coalesce(t.id, t.old)) IN :token_ids\n) source"
        " WHERE token_id IN :token_ids"
    )
    assert few.values == {"expires_after": 1, "expires_before": 2, "token_ids": ["5"]}


def test_marker_is_a_comment_in_a_snapshot(tmp_path: Path) -> None:
    written = load(tmp_path, f"SELECT x FROM t {BETWEEN} /* token_ids: t.id */")
    assert query.wrap(written, ["token_id"], {}).text == f"SELECT token_id FROM (\n{written}\n) source"


def test_ids_are_written_as_the_database_compares_them() -> None:
    ids = ["5", "007", "x", "-1", "123456789012345678901"]
    assert POSTGRES.literals(ids, pa.int64()) == ids
    assert MYSQL.literals(ids, pa.int64()) == [5, -1]
    assert MYSQL.literals(ids, pa.null()) == ids
    assert SQLITE.literals(ids, pa.null()) == [*ids, 5, -1]


def test_ids_as_large_as_a_column_can_hold_are_numbers() -> None:
    """By value: 2^63 is none of SQLite's, whose driver cannot even send it."""
    inside = [-(2**63), 10**18, 1234567890123456789, 2**63 - 1]
    unsigned = [2**63, 2**64 - 1]
    ids = [str(number) for number in (*inside, *unsigned, 2**64, -(2**63) - 1)]
    assert MYSQL.literals(ids, pa.int64()) == [*inside, *unsigned]
    assert SQLITE.literals(ids, pa.null()) == [*ids, *inside]
