"""Bulk work by COPY against a real Postgres: what goes in comes out, whatever is in it."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Select, column, create_engine, select, table, text

from token_pipelines.ledger import copying
from token_pipelines.ledger.copying import copy_in, copy_out, random_uuids
from token_pipelines.token_facts import INSTANT

COLUMNS = {"name": "str", "at": INSTANT, "flag": "bool"}
SCHEMA = pa.schema([("name", pa.large_string()), ("at", pa.timestamp("us", tz="UTC")), ("flag", pa.bool_())])
LINES: Select[*tuple[Any, ...]] = select(*map(column, COLUMNS)).select_from(table("lines")).order_by(column("number"))

# NUL is the one character that Postgres cannot keep, and a lone surrogate is none.
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
instants = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- as asked
rows = st.lists(st.tuples(st.none() | names, st.none() | instants, st.none() | st.booleans()), max_size=20)

HOSTILE = ['"', '""', "\\", "\\.", "\\N", "\n", "\r\n", "\r", ",", "", " ", "NULL", "t", "é🦀\u202e", "a\tb", "'; --"]
NOON = datetime(2026, 11, 20, 12, 0, 0, 123457, tzinfo=UTC)


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A connection whose session writes instants in a way of its own, as a server may be set to."""
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as opened:
        opened.execute(text("SET datestyle = 'German, DMY'"))
        opened.execute(text("SET timezone = 'Asia/Kolkata'"))
        opened.execute(text("CREATE TABLE lines (number serial, name text, at timestamptz, flag boolean)"))
        opened.commit()
        yield opened
    engine.dispose()


def _there_and_back(connection: Connection, lines: pa.Table) -> pa.Table:
    try:
        copy_in(connection, "lines", lines)
        return copy_out(connection, LINES, COLUMNS)
    finally:
        connection.rollback()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows)
@example(rows=[(name, NOON, True) for name in HOSTILE])
@example(rows=[(None, None, None)])
@example(rows=[])
def test_copying_in_and_out_keeps_every_value(connection: Connection, rows: list[tuple[object, ...]]) -> None:
    lines = pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in rows], schema=SCHEMA)

    assert _there_and_back(connection, lines).to_pylist() == lines.to_pylist()


def test_copying_in_pieces_loses_no_row(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "ROWS_A_PIECE", 7)
    monkeypatch.setattr(copying, "BYTES_A_PIECE", 100)
    lines = pa.Table.from_pylist(
        [{"name": f"{number}\n{number}", "at": NOON, "flag": number % 3 == 0} for number in range(100)], schema=SCHEMA
    )

    assert _there_and_back(connection, lines).to_pylist() == lines.to_pylist()


def test_copying_out_binds_what_the_query_asks_for(connection: Connection) -> None:
    lines = pa.Table.from_pylist([{"name": name, "at": NOON, "flag": True} for name in ("it's", "100%")], schema=SCHEMA)
    copy_in(connection, "lines", lines)
    query = LINES.where(column("name").in_(["it's", "nobody"]), column("at") == NOON)

    assert copy_out(connection, query, COLUMNS).to_pylist() == [{"name": "it's", "at": NOON, "flag": True}]


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_random_uuids_are_version_4_distinct_and_in_order(count: int) -> None:
    made = random_uuids(count).to_pylist()

    assert len(set(made)) == count
    assert made == sorted(made)
    assert all(str(uuid.UUID(one)) == one for one in made)
    assert {(uuid.UUID(one).version, uuid.UUID(one).variant) for one in made} <= {(4, uuid.RFC_4122)}
