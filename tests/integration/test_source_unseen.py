"""Expiries that a loose comparison keeps out of every window: told, where a database would be silent."""

# ruff: noqa: S608 -- a test's own queries

from datetime import UTC, datetime, timedelta

import pytest
from support.databases import Database, OpenDatabase

from token_pipelines.errors import SourceContractError, SourceError, TokenPipelinesError
from token_pipelines.policy import Window
from token_pipelines.source.source import Source

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
SOON = NOW + timedelta(days=2)
WINDOW = Window(expires_after=NOW - timedelta(days=3), expires_before=NOW + timedelta(days=30))

CREATED = {"sqlite": "'2026-01-01T00:00:00Z'", "mariadb": "timestamp('2026-01-01 00:00:00')"}
BARE = "{0} >= :expires_after AND {0} < :expires_before"

SECONDS = f"{SOON.timestamp():.0f}"
NUMBER = "The source query's expires_at is {}, a number and not an instant; "
NO_INSTANT = "The source query's expires_at is text that is no instant (token_id 1); "


def make(open_database: OpenDatabase, kind: str, column: str, *values: str) -> Database:
    database = open_database(kind)
    database.execute(f"CREATE TABLE tokens (id integer PRIMARY KEY, x {column})")
    for number, value in enumerate(values, start=1):
        database.execute(f"INSERT INTO tokens VALUES ({number}, {value})")
    return database


def source(database: Database, kind: str, *, expires_at: str = "x", where: str = BARE.format("x")) -> Source:
    select = f"""
        SELECT id AS token_id, 7 AS recipient_id, {CREATED[kind]} AS created_at, {expires_at} AS expires_at,
            'n' AS token_name, 'Ada' AS recipient_name, 'ada@example.org' AS email
        FROM tokens WHERE {where}
    """
    return database.source(select, timezone="UTC")


def refusal(read: Source, kind: type[TokenPipelinesError]) -> str:
    with pytest.raises(TokenPipelinesError) as caught:
        list(read.snapshot(WINDOW))
    said = str(caught.value)
    assert type(caught.value) is kind, said
    assert said.endswith(".")
    assert "\n" not in said
    assert not any(value in said for value in ("2026112", SECONDS, "22.11.", "2461"))
    return said


def ids(read: Source) -> list[str]:
    return [token_id for frame in read.snapshot(WINDOW) for token_id in frame["token_id"].tolist()]


@pytest.mark.parametrize(
    ("column", "value", "kind", "said"),
    [
        ("integer", SECONDS, SourceContractError, NUMBER.format("int64")),
        ("datetime", SECONDS, SourceContractError, NUMBER.format("int64")),
        ("", f"{SECONDS}000", SourceContractError, NUMBER.format("int64")),
        ("real", f"{SECONDS}.5", SourceContractError, NUMBER.format("double")),
        ("real", "julianday('2026-11-22 09:00:00')", SourceContractError, NUMBER.format("double")),
        ("text", SECONDS, SourceError, NO_INSTANT),
        ("text", f"{SECONDS}000", SourceError, NO_INSTANT),
        ("text", "'2461367.875'", SourceError, NO_INSTANT),
        ("text", "'20261122T090000Z'", SourceError, NO_INSTANT),
        ("", "'20261122'", SourceError, NO_INSTANT),
        ("text", "'22.11.2026 09:00'", SourceError, NO_INSTANT),
        ("datetime", "'11/22/2026 9:00 AM'", SourceError, NO_INSTANT),
        ("text", "'2026/11/22 09:00'", SourceError, NO_INSTANT),
        ("text", "'2026-11-2 09:00'", SourceError, NO_INSTANT),
        ("text", "'Nov 22, 2026'", SourceError, NO_INSTANT),
        ("blob", "CAST('2026-11-22 09:00:00' AS blob)", SourceContractError, "The source query's expires_at is binary"),
    ],
)
def test_expiry_of_sqlite_that_no_window_would_hold_is_refused(
    open_database: OpenDatabase, column: str, value: str, kind: type[TokenPipelinesError], said: str
) -> None:
    """Any number is below any text, and 2026… below 2026-…: not one such row would ever come."""
    good = "'2026-11-22 09:00:00'"
    assert refusal(source(make(open_database, "sqlite", column, value), "sqlite"), kind).startswith(said)
    mixed = make_again(open_database("sqlite"), column, value, *[good] * 50)
    assert refusal(source(mixed, "sqlite"), kind).startswith(said)


def make_again(database: Database, column: str, *values: str) -> Database:
    database.execute("DROP TABLE tokens", f"CREATE TABLE tokens (id integer PRIMARY KEY, x {column})")
    for number, value in enumerate(values, start=1):
        database.execute(f"INSERT INTO tokens VALUES ({number}, {value})")
    return database


@pytest.mark.parametrize("value", ["'20261122T090000Z'", f"'{SECONDS}'", "'22.11.2026 09:00'"])
def test_bind_inside_a_function_hides_no_odd_text(open_database: OpenDatabase, value: str) -> None:
    database = make(open_database, "sqlite", "text", value)
    where = "x >= datetime(:expires_after) AND x < datetime(:expires_before)"
    assert refusal(source(database, "sqlite", where=where), SourceError).startswith(NO_INSTANT)


def test_number_that_the_select_converts_and_the_where_does_not_is_refused(open_database: OpenDatabase) -> None:
    """The next mistake of who was told that it is a number."""
    database = make(open_database, "sqlite", "integer", SECONDS)
    converted = "datetime(x, 'unixepoch') || 'Z'"
    assert refusal(source(database, "sqlite", expires_at=converted), SourceError) == (
        "The source query does not find a token by the expires_at that it returns for it (token_id 1); compare the very"
        " expression that it returns with :expires_after and :expires_before, not the column as it is kept."
    )
    assert ids(source(database, "sqlite", expires_at=converted, where=BARE.format(converted))) == ["1"]
    seconds = (
        "x >= CAST(strftime('%s', :expires_after) AS INTEGER) AND x < CAST(strftime('%s', :expires_before) AS INTEGER)"
    )
    assert ids(source(database, "sqlite", expires_at=converted, where=seconds)) == ["1"]


@pytest.mark.parametrize("value", ["''", "'never'", "0", "-1", "'0'", "NULL", "'0000-00-00 00:00:00'", "'infinity'"])
@pytest.mark.parametrize("column", ["text", "integer", ""])
def test_value_that_stands_for_never_is_left_out_as_the_query_says(
    open_database: OpenDatabase, column: str, value: str
) -> None:
    database = make(open_database, "sqlite", column, value, "'2026-11-22 09:00:00'", value)
    assert ids(source(database, "sqlite")) == ["2"]


def test_empty_table_is_none_of_our_business(open_database: OpenDatabase) -> None:
    assert ids(source(make(open_database, "sqlite", "text"), "sqlite")) == []


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("bigint", SECONDS, NUMBER.format("int64")),
        ("bigint", f"{SECONDS}000", NUMBER.format("int64")),
        ("double", "2461367.875", NUMBER.format("double")),
        ("decimal(20,3)", f"{SECONDS}.5", NUMBER.format("decimal128(38, 6)")),
        ("varchar(40)", f"'{SECONDS}'", "The source query's expires_at is string, not an instant; "),
        ("varchar(40)", "'20261122T090000Z'", "The source query's expires_at is string, not an instant; "),
        ("text", "'22.11.2026 09:00'", "The source query's expires_at is string, not an instant; "),
        ("char(30)", "'2026-11-22 09:00:00'", "The source query's expires_at is string, not an instant; "),
        ("varbinary(40)", "'20261122T090000Z'", "The source query's expires_at is string, not an instant; "),
    ],
)
def test_expiry_of_mariadb_that_is_no_instant_is_refused_without_a_row(
    open_database: OpenDatabase, column: str, value: str, said: str
) -> None:
    """Its comparison is as loose; but it says what its columns are."""
    refused = refusal(source(make(open_database, "mariadb", column, value), "mariadb"), SourceContractError)
    assert refused.startswith(said)


def test_null_of_mariadb_that_grouping_makes_text_is_no_fault(open_database: OpenDatabase) -> None:
    database = make(open_database, "mariadb", "datetime", "'2026-11-22 09:00:00'")
    select = source(database, "mariadb")._query  # noqa: SLF001 -- to put a column into it
    more = select.replace("FROM tokens", ", NULL AS last_used_at, NULL AS revoked FROM tokens") + " GROUP BY id, x"
    assert ids(database.source(more, timezone="UTC")) == ["1"]


def test_number_of_mariadb_that_only_the_select_converts_is_found_on_request(open_database: OpenDatabase) -> None:
    """By `source check`, when it has seen no row: a daily run does not pay for it."""
    database = make(open_database, "mariadb", "bigint", SECONDS)
    loose = source(database, "mariadb", expires_at="from_unixtime(x)")
    assert ids(loose) == []
    with pytest.raises(
        SourceError, match=r"does not find a token by the expires_at that it returns for it \(token_id 1"
    ):
        loose.probe_expiries()
    source(database, "mariadb", expires_at="from_unixtime(x)", where=BARE.format("from_unixtime(x)")).probe_expiries()
