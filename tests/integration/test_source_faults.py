"""Faults that only rows can show: each refused in one sentence with the column, a row's id and the cure."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from support.databases import Database, OpenDatabase

from token_pipelines.errors import SourceContractError, SourceError, TokenPipelinesError
from token_pipelines.policy import Window
from token_pipelines.source.source import Source

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
WINDOW = Window(expires_after=NOW - timedelta(days=3), expires_before=NOW + timedelta(days=30))

INSTANT = {
    "postgres": "timestamptz '2026-11-21 09:00:00Z'",
    "mariadb": "timestamp('2026-11-21 09:00:00')",
    "sqlite": "'2026-11-21T09:00:00Z'",
}
SecretOrNot = Callable[[str], str]


def query(kind: str, *, where: str = "{0} >= :expires_after AND {0} < :expires_before", **changes: str) -> str:
    """A query over the table ``tokens`` with the ids 1 and 2; ``changes`` replace a column, or add one."""
    columns = {
        "token_id": "id",
        "recipient_id": "7",
        "created_at": INSTANT[kind],
        "expires_at": INSTANT[kind],
        "token_name": "'n'",
        "recipient_name": "'Ada'",
        "email": "'ada@example.org'",
    } | changes
    selected = ", ".join(f"{what} AS {name}" for name, what in columns.items())
    return f"SELECT {selected} FROM tokens WHERE {where.format(INSTANT[kind])}"  # noqa: S608 -- a test's own


def make(open_database: OpenDatabase, kind: str, column: str = "int", values: tuple[str, str] = ("0", "1")) -> Database:
    """A table ``tokens`` with a column ``x`` in which only the second token's value is at fault."""
    database = open_database(kind)
    database.execute(f"CREATE TABLE tokens (id int, x {column} NULL)")
    for number, value in enumerate(values, start=1):
        database.execute(f"INSERT INTO tokens VALUES ({number}, {value})")  # noqa: S608 -- a test's own
    return database


def refusal(source: Source, kind: type[TokenPipelinesError] = SourceError) -> str:
    with pytest.raises(kind) as caught:
        list(source.snapshot(WINDOW))
    assert type(caught.value) is kind
    said = str(caught.value)
    assert said.endswith(".")
    assert "\n" not in said
    return said


@pytest.mark.parametrize("value", ["'infinity'", "'-infinity'"])
@pytest.mark.parametrize("column", ["timestamptz", "timestamp"])
@pytest.mark.parametrize("name", ["created_at", "last_used_at", "replaced_at"])
def test_infinity_is_refused(open_database: OpenDatabase, name: str, column: str, value: str) -> None:
    """ADBC makes a date some 290,000 years ago of it."""
    database = make(open_database, "postgres", column, ("now()", value))
    said = refusal(database.source(query("postgres", **{name: "x"}), timezone="Europe/Berlin"))
    assert said == (
        f"The source query returns an infinite {name} (token_id 2); write CASE WHEN isfinite({name}) THEN {name} END,"
        " or exclude such rows in SQL."
    )


def test_expiry_that_is_infinity_is_refused_where_the_query_lets_it_through(open_database: OpenDatabase) -> None:
    database = make(open_database, "postgres", "timestamptz", ("now()", "'infinity'"))
    where = "x >= :expires_after AND (x < :expires_before OR NOT isfinite(x))"
    source = database.source(query("postgres", expires_at="x", created_at="x - interval '1 d'", where=where))
    assert refusal(source).startswith("The source query returns an infinite expires_at (token_id 2); write CASE ")


@pytest.mark.parametrize("column", ["datetime(6)", "timestamp(6)"])
def test_zero_date_is_refused(open_database: OpenDatabase, column: str) -> None:
    database = make(open_database, "mariadb", column, ("now()", "NULL"))
    database.execute("SET sql_mode = ''", "UPDATE tokens SET x = 0 WHERE id = 2")
    assert refusal(database.source(query("mariadb", last_used_at="x"), timezone="UTC")) == (
        "The source query returns a zero date as last_used_at (token_id 2); write nullif(last_used_at, 0), or exclude"
        " such rows in SQL."
    )
    repaired = database.source(query("mariadb", last_used_at="nullif(x, 0)"), timezone="UTC")
    assert [len(frame) for frame in repaired.snapshot(WINDOW)] == [2]


@pytest.mark.parametrize("kind", ["mariadb", "sqlite"])
@pytest.mark.parametrize(
    ("column", "value", "found"), [("bigint", "1790000000", "int64"), ("double", "1790000000.5", "double")]
)
def test_epoch_number_is_refused(open_database: OpenDatabase, kind: str, column: str, value: str, found: str) -> None:
    cure = {
        "mariadb": "from_unixtime(created_at), with source.timezone: UTC; divide milliseconds by 1000",
        "sqlite": "(datetime(created_at, 'unixepoch') || 'Z'); divide milliseconds by 1000, and of a Julian day write"
        " (datetime(created_at) || 'Z')",
    }
    database = make(open_database, kind, column, (value, value))
    said = refusal(database.source(query(kind, created_at="x"), timezone="UTC"), SourceContractError)
    assert said == (
        f"The source query's created_at is {found}, a number and not an instant; if it counts seconds since 1970,"
        f" write {cure[kind]}."
    )


@pytest.mark.parametrize("column", ["numeric", "double precision", "bigint"])
def test_epoch_number_of_postgres_is_refused(open_database: OpenDatabase, column: str) -> None:
    database = make(open_database, "postgres", column)
    said = refusal(database.source(query("postgres", created_at="x")), SourceContractError)
    assert "created_at is " in said
    assert said.endswith(
        "a number and not an instant; if it counts seconds since 1970, write to_timestamp(created_at); divide"
        " milliseconds by 1000."
    )


def test_date_is_refused_with_the_databases_own_cure(open_database: OpenDatabase) -> None:
    maria = make(open_database, "mariadb", "date", ("now()", "now()")).source(query("mariadb", created_at="x"))
    sqlite = make(open_database, "sqlite", "date", ("'2026-01-01T00:00:00Z'", "'2026-01-01'"))
    cure = "say in SQL at which instant of that day it is meant, for example"
    assert refusal(maria, SourceContractError) == (
        f"The source query's created_at is a DATE; {cure} timestamp(created_at)."
    )
    assert refusal(sqlite.source(query("sqlite", created_at="x"))) == (
        f"The source query's created_at is a date without a time (token_id 2); {cure} (created_at || ' 00:00:00Z')."
    )


@pytest.mark.parametrize(
    "value", ["soon", "", "2026-02-30 09:00:00", "2026-11-21 25:00:00", "21.11.2026 09:00", "09:00", "20261121T090000Z"]
)
def test_text_that_is_no_instant_is_refused_and_not_repeated(open_database: OpenDatabase, value: str) -> None:
    database = make(open_database, "sqlite", "text", ("'2026-01-01 00:00:00'", f"'{value}'"))
    assert refusal(database.source(query("sqlite", created_at="x"), timezone="UTC")) == (
        "The source query's created_at is text that is no instant (token_id 2); write instants like 2026-01-31 09:00:00"
        " or 2026-01-31T09:00:00Z."
    )


def test_text_without_a_zone_is_refused_unless_one_is_set(open_database: OpenDatabase) -> None:
    database = make(open_database, "sqlite", "text", ("'2026-01-01 00:00:00Z'", "'2026-01-01 00:00:00'"))
    assert refusal(database.source(query("sqlite", created_at="x"))) == (
        "The source query's created_at has no time zone (token_id 2); end it in Z where it is UTC, or set"
        " source.timezone to the zone it is kept in."
    )


def test_datetime_without_a_zone_is_refused(open_database: OpenDatabase) -> None:
    database = make(open_database, "mariadb")
    assert refusal(database.source(query("mariadb")), SourceContractError) == (
        "The source query's created_at has no time zone; set source.timezone to the zone it is kept in."
    )


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
def test_expiry_outside_the_binds_is_refused(open_database: OpenDatabase, kind: str) -> None:
    """The query ignores its binds: here an OR bypasses them."""
    later = INSTANT[kind].replace("2026", "2031")
    database = make(open_database, kind)
    ignored = "({0} >= :expires_after AND {0} < :expires_before) OR id = 2"
    expires_at = f"CASE WHEN id = 2 THEN {later} ELSE {INSTANT[kind]} END"
    assert refusal(database.source(query(kind, where=ignored, expires_at=expires_at), timezone="UTC")) == (
        "The source query returns an expires_at outside :expires_after and :expires_before (token_id 2); compare the"
        " very expires_at that it returns with both, in a condition that no OR bypasses."
    )


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
def test_row_that_a_join_multiplies_is_refused(open_database: OpenDatabase, kind: str) -> None:
    database = make(open_database, kind, values=("0", "1"))
    database.execute("INSERT INTO tokens VALUES (2, 0)")
    assert refusal(database.source(query(kind), timezone="UTC")) == (
        "The source query returns a token and recipient more than once (token_id 2); a join multiplies its rows:"
        " aggregate, or join on a unique column."
    )


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
@pytest.mark.parametrize(
    "name",
    [
        *("secret", "token", "token_hash", "hash", "digest", "token_digest", "password", "encrypted_token", "api_key"),
        *("hashed_key", "tokenHash", "refresh_token", "plaintext_value", "SECRET_KEY", "salt", "key"),
    ],
)
def test_column_that_looks_like_a_secret_is_refused(open_database: OpenDatabase, kind: str, name: str) -> None:
    database = make(open_database, kind)
    quoted = {"postgres": f'"{name}"', "sqlite": f'"{name}"', "mariadb": f"`{name}`"}[kind]
    assert refusal(database.source(query(kind, **{quoted: "'hush'"}), timezone="UTC"), SourceContractError) == (
        f"The source query returns {name}, which looks like a secret or its hash; leave it out of the SELECT, or rename"
        " it there if it is none."
    )


@pytest.mark.parametrize("kind", ["postgres", "mariadb", "sqlite"])
@pytest.mark.parametrize("name", ["email", "token_id", "revoked"])
def test_column_that_comes_twice_is_refused(open_database: OpenDatabase, kind: str, name: str) -> None:
    """SQLite would number the second one: email:1."""
    changes = {"revoked": "1 = 0"} if name == "revoked" else {}
    again = f", 'x' AS {name.upper() if kind == 'sqlite' else name} FROM tokens"
    source = make(open_database, kind).source(query(kind, **changes).replace(" FROM tokens", again), timezone="UTC")
    said = {
        "mariadb": f"The source query is not accepted by the database: Duplicate column name '{name}'; fix "
        "source.query."
    }
    assert refusal(source, SourceContractError) == said.get(kind, f"The source query returns {name} twice; keep one.")


def test_column_that_only_sounds_like_a_secret_is_ignored(open_database: OpenDatabase) -> None:
    names = [
        "token_type",
        "token_count",
        "key_id",
        "public_key",
        "keyboard",
        "tokens",
        "hashtag",
        "monkey",
        "secretary",
    ]
    database = make(open_database, "postgres")
    source = database.source(query("postgres", **dict.fromkeys(names, "1")))
    assert [frame["token_id"].tolist() for frame in source.snapshot(WINDOW)] == [["1", "2"]]


@pytest.mark.parametrize(("kind", "column"), [("mariadb", "tinyint"), ("sqlite", "boolean"), ("mariadb", "bit(1)")])
def test_numbers_are_flags_where_there_are_no_booleans(open_database: OpenDatabase, kind: str, column: str) -> None:
    database = make(open_database, kind, column, ("0", "1"))
    [frame] = database.source(query(kind, revoked="x", muted="x = 0"), timezone="UTC").snapshot(WINDOW)
    assert frame[["revoked", "muted"]].to_numpy().tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize("kind", ["mariadb", "sqlite"])
def test_flag_that_is_another_number_is_refused(open_database: OpenDatabase, kind: str) -> None:
    database = make(open_database, kind, "int", ("0", "2"))
    assert refusal(database.source(query(kind, revoked="x"), timezone="UTC")) == (
        "The source query's revoked is a number other than 0 and 1 (token_id 2); compare it in SQL."
    )


def test_scopes_of_a_wrong_type_are_refused(open_database: OpenDatabase) -> None:
    said = "The source query's scopes is int32; return an array of text, or text with blanks or commas."
    assert refusal(make(open_database, "postgres").source(query("postgres", scopes="x")), SourceContractError) == said


@pytest.mark.parametrize("kind", ["mariadb", "sqlite"])
def test_scopes_may_be_json(open_database: OpenDatabase, kind: str) -> None:
    database = make(open_database, kind, "varchar(80)", ("""'["read", "write all"]'""", "'[odd'"))
    found = database.source(query(kind, scopes="x"), timezone="UTC").resolve(["1", "2"])
    assert found["scopes"].tolist() == [("read", "write all"), ("[odd",)]


def test_binary_id_is_refused(open_database: OpenDatabase) -> None:
    database = make(open_database, "mariadb", "binary(16)", ("unhex('ff')", "unhex('fe')"))
    said = refusal(database.source(query("mariadb", token_id="x"), timezone="UTC"), SourceContractError)
    assert said == "The source query's token_id is binary, which is no text; write hex(token_id)."
    hexed = database.source(query("mariadb", token_id="hex(x)"), timezone="UTC")
    assert [len(frame) for frame in hexed.snapshot(WINDOW)] == [2]


def test_column_of_several_types_is_refused(open_database: OpenDatabase) -> None:
    database = make(open_database, "sqlite", "blob", ("1.5", "'x'"))
    assert refusal(database.source(query("sqlite", token_id="x"), timezone="UTC"), SourceContractError) == (
        "The source query's token_id holds values of several types (float and str); cast it to one in SQL."
    )


def test_ids_of_two_types_are_told_apart_as_text(open_database: OpenDatabase) -> None:
    database = make(open_database, "sqlite", "blob", ("5", "'a5'"))
    source = database.source(query("sqlite", token_id="x"), timezone="UTC")
    assert [frame["token_id"].tolist() for frame in source.snapshot(WINDOW)] == [["5", "a5"]]
    assert source.resolve(["5"])["token_id"].tolist() == ["5"]
    assert source.resolve(["a5"])["token_id"].tolist() == ["a5"]


def test_id_of_another_case_is_another_token(open_database: OpenDatabase) -> None:
    """MariaDB returns ABC where abc is asked for, and abc with a blank too."""
    database = make(open_database, "mariadb", "varchar(10)", ("'abc'", "'ABC'"))
    database.execute("INSERT INTO tokens VALUES (3, 'abc ')")
    source = database.source(query("mariadb", token_id="x"), timezone="UTC")
    assert source.resolve(["abc"])["token_id"].tolist() == ["abc"]


@pytest.mark.parametrize(
    ("kind", "column", "ids"),
    [
        ("mariadb", "bigint", ("1234567890123456789", "-9223372036854775808")),
        ("mariadb", "bigint unsigned", ("9223372036854775809", "7")),
        ("mariadb", "bigint unsigned", ("18446744073709551615", "9223372036854775807")),
        ("mariadb", "decimal(20)", ("18446744073709551615", "1234567890123456789")),
        ("sqlite", "integer", ("1234567890123456789", "-9223372036854775808")),
        ("postgres", "bigint", ("1234567890123456789", "-9223372036854775808")),
    ],
)
@pytest.mark.parametrize("expression", ["x", "x + 0"])
def test_id_of_nineteen_digits_is_found_again(
    open_database: OpenDatabase, kind: str, column: str, ids: tuple[str, str], expression: str
) -> None:
    """As of a snowflake. One that is planned and not found again would be skipped as gone, day after day."""
    database = make(open_database, kind, column, ids)
    source = database.source(query(kind, token_id=expression), timezone="UTC")
    assert [frame["token_id"].tolist() for frame in source.snapshot(WINDOW)] == [list(ids)]
    assert sorted(source.resolve(ids)["token_id"]) == sorted(ids)
    assert source.resolve(ids[:1])["token_id"].tolist() == [ids[0]]


def test_unsigned_number_that_is_negative_too_is_of_several_types(open_database: OpenDatabase) -> None:
    """No driver gives it from one column; a union of two does."""
    database = make(open_database, "mariadb", "bigint unsigned", ("18446744073709551615", "7"))
    source = database.source(query("mariadb", token_id="if(id = 1, x, -1)"), timezone="UTC")
    assert [frame["token_id"].tolist() for frame in source.snapshot(WINDOW)] == [["18446744073709551615", "-1"]]
