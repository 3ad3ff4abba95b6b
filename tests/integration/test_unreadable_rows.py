"""One row that cannot be read is set apart, with its column; every other row comes, in a snapshot and by id."""

from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import make_url
from support.databases import Database, OpenDatabase
from support.pipeline import DAY, NOW
from support.source import WINDOW

from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.errors import SourceError
from token_pipelines.source.databases.postgres_reader import NO_ENCODING
from token_pipelines.source.source import Source

ENDS = NOW + DAY
COLUMNS = {
    "token_id": "id",
    "recipient_id": "person",
    "created_at": "made",
    "expires_at": "ends",
    "token_name": "name",
    "recipient_name": "name",
    "email": "email",
    "last_used_at": "used",
    "scopes": "scopes",
    "locale": "locale",
    "timezone": "locale",
}
KINDS = {"postgres": "timestamptz", "mariadb": "datetime", "sqlite": "text"}
ROW = {"id": "1", "person": "7", "name": "'ci'", "email": "'a@example.org'", "used": "NULL", "scopes": "'read'"}


def query(**changes: str) -> str:
    selected = ", ".join(f"{what} AS {name}" for name, what in (COLUMNS | changes).items())
    return f"SELECT {selected} FROM tokens WHERE ends >= :expires_after AND ends < :expires_before"  # noqa: S608 -- a test's own


def fill(database: Database, kind: str, *rows: dict[str, str], text: str = "text") -> None:
    """A table of three rows, 1 to 3, each with changes of its own."""
    instant, untyped = KINDS[kind], "" if kind == "sqlite" else text
    database.execute(
        f"CREATE TABLE tokens (id {untyped}, person {untyped}, name {untyped}, email {untyped}, scopes {untyped},"
        f" locale {untyped}, made {instant}, ends {instant}, used {instant} NULL)"
    )
    for number, changes in enumerate(rows, start=1):
        row = {
            "made": f"'{NOW - 90 * DAY:%Y-%m-%d %H:%M:%S}'",
            "ends": f"'{ENDS:%Y-%m-%d %H:%M:%S}'",
            "locale": "'de'",
            **ROW,
            "id": f"'{number}'",
            **changes,
        }
        database.execute(f"INSERT INTO tokens ({', '.join(row)}) VALUES ({', '.join(row.values())})")  # noqa: S608 -- a test's own


def unreadable(source: Source) -> dict[str, str]:
    """The column at fault of each row of a snapshot; empty for those that can be read."""
    return {
        token_id: column
        for frame in source.snapshot(WINDOW)
        for token_id, column in zip(frame["token_id"], frame["unreadable"], strict=True)
    }


def facts(source: Source, *token_ids: str) -> dict[str, dict[str, object]]:
    found = source.resolve(token_ids or ("1", "2", "3"))
    return {str(row["token_id"]): {str(name): value for name, value in row.items()} for row in found.to_dict("records")}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "CAST(x'4afc' AS text)"),
        ("id", "x'32'"),
        ("id", "'2' || char(0)"),
        ("id", f"'{'2' * 1001}'"),
        ("person", "CAST(x'4afc' AS text)"),
        ("person", "'7' || char(0)"),
        ("person", "x'37'"),
        ("used", "CAST(x'4afc' AS text)"),
    ],
)
def test_sqlite_row_whose_id_or_instant_cannot_be_read_is_set_apart(
    open_database: OpenDatabase, column: str, value: str
) -> None:
    database = open_database("sqlite")
    fill(database, "sqlite", {}, {column: value}, {})
    found = unreadable(database.source(query(), timezone="UTC"))
    name = {"id": "token_id", "person": "recipient_id", "used": "last_used_at"}[column]
    assert sorted(found.values()) == ["", "", name]
    assert [found["1"], found["3"]] == ["", ""]


def test_ids_that_would_be_repaired_to_the_same_text_stay_two_rows(open_database: OpenDatabase) -> None:
    """Replaced octets would make one id of two, and one person would be mailed about the other's token."""
    database = open_database("sqlite")
    fill(database, "sqlite", {"id": "CAST(x'4afc' AS text)"}, {"id": "CAST(x'4afd' AS text)"}, {"id": "'J\ufffd'"})
    source = database.source(query(), timezone="UTC")
    assert sorted(unreadable(source).items()) == [("J\\xfc", "token_id"), ("J\\xfd", "token_id"), ("J\ufffd", "")]
    assert list(facts(source, "J\ufffd", "J\\xfc")) == ["J\ufffd"]


def test_unreadable_ids_that_are_shown_alike_are_no_duplicates(open_database: OpenDatabase) -> None:
    database = open_database("sqlite")
    fill(database, "sqlite", {"id": "'J\\xfc'"}, {"id": "CAST(x'4afc' AS text)"}, {"id": "CAST(x'4afc' AS text)"})
    found = [frame["unreadable"].tolist() for frame in database.source(query(), timezone="UTC").snapshot(WINDOW)]
    assert [sorted(each) for each in found] == [["", "token_id", "token_id"]]


def test_address_in_an_id_that_cannot_be_read_is_not_shown(open_database: OpenDatabase) -> None:
    database = open_database("sqlite")
    fill(database, "sqlite", {}, {"person": "'ada@example.org' || char(0)"}, {})
    [frame] = database.source(query(), timezone="UTC").snapshot(WINDOW)
    assert sorted(frame["recipient_id"]) == ["7", "7", "…"]


@pytest.mark.parametrize("value", ["CAST(x'4afc' AS text)", "x'4afc'"])
def test_sqlite_text_that_is_only_shown_is_repaired(open_database: OpenDatabase, value: str) -> None:
    database = open_database("sqlite")
    fill(database, "sqlite", {}, {"name": value, "scopes": value, "locale": value}, {})
    source = database.source(query(), timezone="UTC")
    assert list(unreadable(source).values()) == [""] * 3
    found = facts(source)["2"]
    assert [found[name] for name in ("token_name", "scopes", "locale", "unreadable")] == [
        "J\ufffd",
        ("J\ufffd",),
        "J\ufffd",
        "",
    ]


def test_number_among_names_is_text(open_database: OpenDatabase) -> None:
    database = open_database("sqlite")
    fill(database, "sqlite", {}, {"name": "5"}, {"name": "1.5"})
    assert [row["token_name"] for row in facts(database.source(query(), timezone="UTC")).values()] == ["ci", "5", "1.5"]


def test_address_that_cannot_be_decoded_is_never_repaired(open_database: OpenDatabase) -> None:
    database = open_database("sqlite")
    fill(database, "sqlite", {}, {"email": "CAST(x'fc406578616d706c652e6f7267' AS text)"}, {})
    found = facts(database.source(query(), timezone="UTC"))
    assert {token_id: (row["email"], row["unreadable"]) for token_id, row in found.items()} == {
        "1": ("a@example.org", ""),
        "2": (None, "email"),
        "3": ("a@example.org", ""),
    }


@pytest.mark.parametrize("encoding", ["LATIN1", NO_ENCODING])
@pytest.mark.parametrize("client", [None, "LATIN1", "SQL_ASCII"])
def test_postgres_of_another_encoding_is_read(
    postgres_server: EmbeddedPostgres,
    open_database: OpenDatabase,
    monkeypatch: pytest.MonkeyPatch,
    encoding: str,
    client: str | None,
) -> None:
    name = f"odd_{encoding}_{client}".lower()
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        locale = "LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc"
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' {locale} TEMPLATE template0".encode())
    url = make_url(postgres_server.url(name)).set(drivername="postgresql+psycopg")
    database = Database(url.update_query_dict({"client_encoding": "utf8"}), open_database("sqlite").folder)
    raw = "chr(252)" if encoding == "LATIN1" else "E'\\xfc'"
    fill(database, "postgres", {}, {"name": raw}, {"id": f"'3' || {raw}"})
    if client is not None:
        monkeypatch.setenv("PGCLIENTENCODING", client)
    source = database.source(query(), timezone="UTC")
    known = encoding == "LATIN1"
    assert unreadable(source) == ({"1": "", "2": "", "3ü": ""} if known else {"1": "", "2": "", "3\\xfc": "token_id"})
    assert facts(source, "1", "2")["2"]["token_name"] == ("ü" if known else "\ufffd")
    if known:
        assert list(facts(source, "3ü")) == ["3ü"]


def test_url_that_asks_for_another_encoding_is_read_in_utf8(open_database: OpenDatabase) -> None:
    """Of Postgres. MariaDB's charset in a URL is refused."""
    database = open_database("postgres")
    fill(database, "postgres", {}, {"name": "'日本ü'"}, text="varchar(80)")
    database.url = database.url.update_query_dict({"client_encoding": "LATIN1"})
    assert facts(database.source(query(), timezone="UTC"))["2"]["token_name"] == "日本ü"


def test_mariadb_row_with_a_nul_in_an_id_is_set_apart(open_database: OpenDatabase) -> None:
    database = open_database("mariadb")
    fill(database, "mariadb", {}, {"person": "concat('7', char(0))"}, {}, text="varchar(80)")
    assert unreadable(database.source(query(), timezone="UTC")) == {"1": "", "2": "recipient_id", "3": ""}


@pytest.mark.parametrize(
    ("kind", "expression"),
    [
        ("postgres", "CAST(name AS timestamptz)"),
        ("postgres", "to_timestamp(1 / length(name))"),
        ("postgres", "to_timestamp(loud(name))"),
        ("mariadb", "from_unixtime(18446744073709551615 + (name = ''))"),
        ("sqlite", "json_extract(name, '$.used')"),
        ("sqlite", "CASE WHEN abs(-9223372036854775807 - (name = '')) THEN NULL END"),
    ],
)
def test_row_that_the_database_fails_on_is_found_by_halving(
    open_database: OpenDatabase, kind: str, expression: str
) -> None:
    database = open_database(kind)
    good = "'2026-01-01 00:00:00Z'" if "CAST" in expression else "'{}'"
    rows = [{"name": good}] * 40
    rows[16] = {"name": "''"}
    fill(database, kind, *rows, text="varchar(80)")
    if kind == "postgres":
        body = "BEGIN IF $1 = '' THEN RAISE EXCEPTION 'no'; END IF; RETURN 1; END"
        database.execute(f"CREATE FUNCTION loud(text) RETURNS int LANGUAGE plpgsql STABLE AS $${body}$$")
    source = database.source(query(last_used_at=expression), timezone="UTC")
    assert unreadable(source) == {str(number): "last_used_at" if number == 17 else "" for number in range(1, 41)}
    named = {token_id: row["unreadable"] for token_id, row in facts(source, "16", "17", "18").items()}
    assert named == {"16": "", "17": "last_used_at", "18": ""}


def test_query_that_fails_on_every_row_is_refused(open_database: OpenDatabase) -> None:
    database = open_database("postgres")
    fill(database, "postgres", *[{"person": f"'{number}'"} for number in range(20)])
    source = database.source(query(last_used_at="to_timestamp(1 / (length(name) - 2))"))
    for read in (lambda: list(source.snapshot(WINDOW)), lambda: source.resolve([str(n) for n in range(1, 21)])):
        with pytest.raises(SourceError, match=r"failed on a row's value \(division by zero\)"):
            read()


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
@pytest.mark.parametrize("brackets", ["[" * 1100, "[" * 1100 + '"admin"' + "]" * 1100])
def test_nested_scopes_are_flat(open_database: OpenDatabase, kind: str, brackets: str) -> None:
    database = open_database(kind)
    fill(database, kind, {}, {"scopes": f"'{brackets}'"}, {"scopes": """'["a", ["b", {"c": null}]]'"""})
    found = facts(database.source(query(), timezone="UTC"))
    assert [row["scopes"] for row in found.values()] == [
        ("read",),
        ("admin",) if "admin" in brackets else (),
        ("a", "b", "c"),
    ]


def test_nested_array_of_postgres_is_flat(open_database: OpenDatabase) -> None:
    database = open_database("postgres")
    fill(database, "postgres", {}, {"name": "'deep'"})
    array = "CASE WHEN name = 'deep' THEN ARRAY[ARRAY['a', 'b'], ARRAY['c', NULL]] ELSE ARRAY['read'] END"
    found = facts(database.source(query(scopes=array)))
    assert [found[token_id]["scopes"] for token_id in ("1", "2")] == [("read",), ("a", "b", "c")]


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
def test_text_of_a_megabyte_is_cut(open_database: OpenDatabase, kind: str) -> None:
    database = open_database(kind)
    long = {"sqlite": "replace(hex(zeroblob(500000)), '00', 'ab')"}.get(kind, "repeat('a', 1000000)")
    fill(
        database,
        kind,
        {},
        {"name": long, "email": long, "scopes": long, "locale": long},
        text="mediumtext" if kind == "mariadb" else "text",
    )
    found = facts(database.source(query(), timezone="UTC"))["2"]
    assert [len(str(found[name])) for name in ("token_name", "recipient_name", "email")] == [4096] * 3
    assert [len(scope) for scope in found["scopes"]] == [256]  # type: ignore[attr-defined]
    assert (found["locale"], found["timezone"]) == (None, None)


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("value", ["0001-01-01 00:00:00", "1970-01-01 00:00:00"])
def test_time_that_was_not_set_is_never(open_database: OpenDatabase, kind: str, zone: str, value: str) -> None:
    """Go writes its zero time for a time that was not set; others write the beginning of 1970."""
    database = open_database(kind)
    fill(database, kind, {}, {"used": f"'{value}'"}, {})
    used = "used AT TIME ZONE 'UTC'" if kind == "postgres" else "used"
    found = facts(database.source(query(last_used_at=used, replaced_at=used), timezone=zone))["2"]
    assert (found["last_used_at"], found["unreadable"]) == (None, "")
    assert str(found["replaced_at"]) == "NaT"


@pytest.mark.parametrize("zone", ["+00", "+14", "-12"])
def test_time_that_was_not_set_is_never_in_a_column_with_a_zone(open_database: OpenDatabase, zone: str) -> None:
    database = open_database("postgres")
    fill(database, "postgres", {}, {"used": f"'0001-01-01 00:00:00{zone}'"}, {"used": f"'1970-01-01 00:00:00{zone}'"})
    source = database.source(query())
    assert list(unreadable(source).values()) == [""] * 3
    assert [row["last_used_at"] for row in facts(source).values()] == [None] * 3


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
def test_creation_at_the_edge_of_the_calendar_is_kept_within_it(open_database: OpenDatabase, zone: str) -> None:
    database = open_database("sqlite")
    fill(database, "sqlite", {"made": "'0001-01-01 00:00:00'"}, {"made": "'9999-12-31 23:59:59'"}, {})
    found = facts(database.source(query(), timezone=zone))
    years = [found[token_id]["created_at"].year for token_id in ("1", "2")]  # type: ignore[attr-defined]
    assert years == [1, 9999]
    assert found["3"]["created_at"] < datetime(2026, 11, 20, tzinfo=UTC)  # type: ignore[operator]
