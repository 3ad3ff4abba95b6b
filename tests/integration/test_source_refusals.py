"""What a database answers to a mistake in the query or in the URL: blamed on what is wrong, and no value repeated."""

# ruff: noqa: S608 -- a test's own queries

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url
from support.databases import Database, OpenDatabase
from support.ledger import ledger_at

from token_pipelines.config import Origin
from token_pipelines.config import Source as SourceConfig
from token_pipelines.errors import ConfigError, SourceContractError, SourceError, TokenPipelinesError
from token_pipelines.source.bounds import ANY_EXPIRY
from token_pipelines.source.on_sent import OnSentStatement
from token_pipelines.source.source import Source

VALUE = "hush@example.org"

INSTANT = {
    "postgres": "timestamptz '2026-11-21 09:00:00Z'",
    "mariadb": "timestamp('2026-11-21 09:00:00')",
    "sqlite": "'2026-11-21T09:00:00Z'",
}
QUERY = """
SELECT id AS token_id, 7 AS recipient_id, {instant} AS created_at, {instant} AS expires_at, {name} AS token_name,
    'Ada' AS recipient_name, 'ada@example.org' AS email
FROM tokens WHERE {instant} >= :expires_after AND {instant} < :expires_before AND {where} {end}
"""


def written(kind: str, *, name: str = "x", where: str = "1 = 1", end: str = "") -> str:
    return QUERY.format(instant=INSTANT[kind], name=name, where=where, end=end)


def make(open_database: OpenDatabase, kind: str) -> Database:
    database = open_database(kind)
    database.execute(
        "CREATE TABLE tokens (id int, x varchar(80))",
        f"INSERT INTO tokens VALUES (1, '{VALUE}'), (2, '{VALUE}')",
    )
    return database


def refusal(source: Source, kind: type[TokenPipelinesError]) -> str:
    with pytest.raises(TokenPipelinesError) as caught:
        list(source.snapshot(ANY_EXPIRY))
    said = str(caught.value)
    assert type(caught.value) is kind, said
    return sound(said)


def sound(said: str) -> str:
    """One sentence, and no value."""
    assert said.endswith(".")
    assert "\n" not in said
    assert "hush" not in said
    assert "was lost" not in said
    return said


NOT_ACCEPTED = "The source query is not accepted by the database: "


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("sqlite", {"where": "x <> 'n"}, "a quote is not closed; fix source.query."),
        ("sqlite", {"where": "id = 1 AND max(id) > 1"}, "misuse of aggregate function max(); fix source.query."),
        ("sqlite", {"where": "id = 1 AND"}, 'near ")": syntax error; fix source.query.'),
        (
            "sqlite",
            {"end": "UNION SELECT 1, 2"},
            "SELECTs to the left and right of UNION do not have the same number of result columns; fix source.query.",
        ),
        (
            "sqlite",
            {"end": "ORDER BY 99"},
            "1st ORDER BY term out of range - should be between 1 and 7; fix source.query.",
        ),
        ("sqlite", {"name": "nowhere"}, "no such column: nowhere; fix source.query."),
        ("sqlite", {"where": "abs(-9223372036854775807 - id) > 0"}, "integer overflow; fix source.query."),
        ("mariadb", {"where": "id = 1 AND max(id) > 1"}, "Invalid use of group function; fix source.query."),
        ("mariadb", {"where": "(SELECT id FROM tokens) > 0"}, "Subquery returns more than 1 row; fix source.query."),
        ("mariadb", {"where": "id IN (SELECT 1, 2)"}, "Operand should contain 1 column(s); fix source.query."),
        ("mariadb", {"end": "ORDER BY 99"}, "Unknown column '99' in 'ORDER BY'; fix source.query."),
        (
            "postgres",
            {"where": "(SELECT x FROM tokens) <> ''"},
            "more than one row returned by a subquery used as an expression; fix source.query.",
        ),
        ("postgres", {"end": "ORDER BY 99"}, "ORDER BY position 99 is not in select list; fix source.query."),
        (
            "postgres",
            {"end": "UNION SELECT 1, 2"},
            "each UNION query must have the same number of columns; fix source.query.",
        ),
        (
            "postgres",
            {"where": "nextval('numbers') > 0"},
            "cannot execute nextval() in a read-only transaction; fix source.query.",
        ),
    ],
)
def test_mistake_in_the_query_is_said_in_the_databases_words(
    open_database: OpenDatabase, kind: str, changes: dict[str, str], said: str
) -> None:
    database = make(open_database, kind)
    if kind == "postgres":
        database.execute("CREATE SEQUENCE numbers")
    source = database.source(written(kind, **changes), timezone="UTC")
    found = refusal(source, SourceContractError)
    assert found.lower() == f"{NOT_ACCEPTED}{said}".lower()


def test_statement_that_changes_data_is_refused(open_database: OpenDatabase) -> None:
    query = f"WITH gone AS (DELETE FROM tokens RETURNING id) {written('postgres')}"
    said = refusal(make(open_database, "postgres").source(query), SourceContractError)
    assert said == (
        f"{NOT_ACCEPTED}WITH clause containing a data-modifying statement must be at the top level; fix source.query."
    )


def loud(open_database: OpenDatabase, kind: str) -> Database:
    """A database with a function that says what it was given."""
    database = make(open_database, kind)
    if kind == "postgres":
        body = "BEGIN RAISE EXCEPTION 'no: %', $1; END"
        database.execute(f"CREATE FUNCTION loud(text) RETURNS text LANGUAGE plpgsql AS $${body}$$")
    if kind == "mariadb":
        body = "BEGIN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = v; RETURN v; END"
        database.execute(f"CREATE FUNCTION loud(v varchar(80)) RETURNS varchar(80) DETERMINISTIC {body}")
    return database


@pytest.mark.parametrize(
    ("kind", "where", "code"),
    [
        ("postgres", "x::int > 0", "invalid input syntax for type integer"),
        ("postgres", "x::timestamptz > now()", "invalid input syntax for type timestamp with time zone"),
        ("postgres", "1 / (id - id) > 0", "division by zero"),
        ("postgres", "2147483647 + id > 0", "integer out of range"),
        ("mariadb", "18446744073709551615 + id > 0", "error 1690"),
    ],
)
def test_value_that_a_calculation_cannot_take_is_not_repeated(
    open_database: OpenDatabase, kind: str, where: str, code: str
) -> None:
    assert refusal(loud(open_database, kind).source(written(kind, where=where), timezone="UTC"), SourceError) == (
        f"The source query failed on a row's value ({code}); leave such rows out in SQL, or fix the cast or the"
        " calculation in source.query."
    )


@pytest.mark.parametrize(
    ("kind", "where", "code"),
    [
        ("postgres", "loud(x) <> ''", "SQLSTATE P0001, RaiseException"),
        ("mariadb", "loud(x) <> ''", "error 1644"),
        ("sqlite", "json_extract('{}', x) <> ''", "SQLITE_ERROR"),
    ],
)
def test_words_of_a_function_are_not_repeated(open_database: OpenDatabase, kind: str, where: str, code: str) -> None:
    assert refusal(loud(open_database, kind).source(written(kind, where=where), timezone="UTC"), SourceError) == (
        f"The source query failed in the database, whose words may hold a value ({code}); look into its log, or run the"
        " query by hand, and fix it."
    )


def test_quote_that_is_not_closed_before_the_binds_is_named(open_database: OpenDatabase) -> None:
    with pytest.raises(SourceContractError) as caught:
        make(open_database, "sqlite").source(written("sqlite", name="'x"))
    assert sound(str(caught.value)).endswith("tokens.sql has a quote or a comment that is not closed; close it.")


@pytest.mark.parametrize(
    ("column", "shown"), [("bigint", "bigint"), ("text", "text"), ("varchar(80)", "character var")]
)
def test_expiry_of_postgres_that_is_no_instant_is_told_how_to_become_one(
    open_database: OpenDatabase, column: str, shown: str
) -> None:
    database = open_database("postgres")
    database.execute(f"CREATE TABLE tokens (id int, x {column})")
    query = written("postgres").replace(INSTANT["postgres"], "x")
    said = refusal(database.source(query), SourceContractError)
    assert said.startswith(f"{NOT_ACCEPTED}operator does not exist: {shown}")
    assert said.endswith(
        "; make an instant of the column, with to_timestamp(…) of seconds since 1970, with CAST(… AS timestamptz) of"
        " text, in the WHERE of source.query as in its SELECT."
    )


# The URL


OPTION = "was given an option that the driver does not take; check what follows the ? in the URL."


@pytest.mark.parametrize("option", ["sslmode=bogus", "foo=bar", "target_session_attrs=odd"])
def test_option_of_a_postgres_url_that_is_none_is_named_so(
    open_database: OpenDatabase, tmp_path: Path, option: str
) -> None:
    database = make(open_database, "postgres")
    name, _, value = option.partition("=")
    url = database.url.update_query_dict({name: value})
    source = Database(url, tmp_path).source(written("postgres"))
    said = refusal(source, ConfigError)
    assert said.startswith("The database of source.url (postgres@")
    assert said.endswith(OPTION)
    address = url.render_as_string(hide_password=False)
    with pytest.raises(ConfigError, match=r"The database of source.url \(postgres@.*the driver does not take"):
        write_back(address, tmp_path).run(["1"], ANY_EXPIRY.expires_after)


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("mariadb", "foo=bar"),
        ("mariadb", "ssl_ca=/nope"),
        ("mariadb", "charset=nope"),
        ("mariadb", "connect_timeout=x"),
        ("sqlite", "timeout=x"),
    ],
)
def test_option_that_the_driver_does_not_take_is_a_sentence(
    open_database: OpenDatabase, tmp_path: Path, kind: str, option: str
) -> None:
    database = make(open_database, kind)
    name, _, value = option.partition("=")
    url = database.url.update_query_dict({name: value}).render_as_string(hide_password=False)
    with pytest.raises(ConfigError) as caught:
        list(Database(make_url(url), tmp_path).source(written(kind), timezone="UTC").snapshot(ANY_EXPIRY))
    assert sound(str(caught.value)).endswith(f" {OPTION}")
    with pytest.raises(ConfigError) as caught:
        write_back(url, tmp_path).run(["1"], ANY_EXPIRY.expires_after)
    assert sound(str(caught.value)).endswith(f" {OPTION}")


@pytest.mark.parametrize("charset", ["latin1", "utf8"])
def test_charset_in_which_text_would_be_lost_is_a_sentence(
    open_database: OpenDatabase, tmp_path: Path, charset: str
) -> None:
    url = make(open_database, "mariadb").url.update_query_dict({"charset": charset})
    with pytest.raises(ConfigError) as caught:
        Database(url, tmp_path).source(written("mariadb"), timezone="UTC")
    said = "asks for a charset, but text is read as utf8mb4 only; leave charset out of the URL."
    assert str(caught.value) == f"source.url {said}"
    with pytest.raises(ConfigError, match="leave charset out of the URL"):
        write_back(url.render_as_string(hide_password=False), tmp_path)


def test_charset_in_which_text_is_read_may_be_asked_for(open_database: OpenDatabase, tmp_path: Path) -> None:
    url = make(open_database, "mariadb").url.update_query_dict({"charset": "utf8mb4"})
    list(Database(url, tmp_path).source(written("mariadb"), timezone="UTC").snapshot(ANY_EXPIRY))


def write_back(url: str, folder: Path) -> OnSentStatement:
    config: dict[str, Any] = {
        "url": url,
        "query": "none.sql",
        "on_sent": "UPDATE tokens SET x = 1 WHERE id IN :token_ids",
    }
    return OnSentStatement(SourceConfig.model_validate(config, context=Origin(folder / "token_pipelines.yaml")))


@pytest.mark.parametrize("path", ["/etc", "/etc/passwd", "/nowhere/at/all.db", ""])
def test_sqlite_file_that_is_none_is_a_sentence(tmp_path: Path, path: str) -> None:
    source = Database(make_url(f"sqlite:///{path}"), tmp_path).source(written("sqlite"))
    said = refusal(source, SourceError)
    assert said.startswith(f"The database of source.url ({path or tmp_path}) ")
    assert said.endswith(
        (
            "cannot be opened; check the path in the URL and the file's permissions.",
            "cannot be read as a file; check the path in the URL, and the disk.",
            "is no SQLite file, or encrypted; check the path in the URL.",
        )
    )


def test_ledger_url_with_an_option_that_is_none_is_a_sentence(database_url: str) -> None:
    url = make_url(database_url).update_query_dict({"foo": "bar"}).render_as_string(hide_password=False)
    with pytest.raises(TokenPipelinesError) as caught:
        ledger_at(url).migrate()
    assert sound(str(caught.value)).endswith(OPTION)
