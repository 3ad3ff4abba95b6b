"""Reading a few tokens by id must not carry out the whole query: is that seen, and does the marker fix it?"""

import pytest
from sqlalchemy import NullPool, create_engine, text
from support.databases import Database, OpenDatabase

SELECT = """
SELECT {distinct} tokens.id AS token_id, tokens.user_id AS recipient_id, tokens.ends AS created_at,
    {ends} AS expires_at, 'n' AS token_name, 'n' AS recipient_name, {email} AS email
FROM tokens JOIN users ON users.id = tokens.user_id
WHERE tokens.ends >= :expires_after AND tokens.ends < :expires_before {marker}
{end}
"""
MARKER = "/* token_ids: tokens.id */"


@pytest.fixture(params=["postgres", "mariadb", "sqlite"])
def database(request: pytest.FixtureRequest, open_database: OpenDatabase) -> Database:
    database = open_database(request.param)
    kind = {"postgres": "timestamptz", "mariadb": "timestamp(6)", "sqlite": "text"}[request.param]
    instant = "2026-11-21 09:00:00" + ("" if request.param == "mariadb" else "Z")
    database.execute(
        f"CREATE TABLE tokens (id int PRIMARY KEY, user_id int, ends {kind} NULL)",
        "CREATE TABLE users (id int PRIMARY KEY, email varchar(80))",
        "INSERT INTO users VALUES (1, 'ada@example.org')",
    )
    engine = create_engine(database.url, poolclass=NullPool)
    with engine.begin() as connection:
        rows = [{"id": number, "ends": instant} for number in range(2000)]
        connection.execute(text("INSERT INTO tokens VALUES (:id, 1, :ends)"), rows)
    engine = create_engine(database.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE TABLE tokens" if request.param == "mariadb" else "ANALYZE")
    return database


def written(**changes: str) -> str:
    plain = {"distinct": "", "ends": "tokens.ends", "email": "users.email", "marker": "", "end": ""}
    return SELECT.format(**plain | changes)


def test_join_lets_the_condition_through(database: Database) -> None:
    assert database.source(written()).filter_reaches_tables(["5", "31"])


@pytest.mark.parametrize("marker", ["", MARKER])
def test_window_function_keeps_the_condition_out_unless_marked(database: Database, marker: str) -> None:
    window = "first_value(users.email) OVER (ORDER BY users.id)"
    source = database.source(written(email=window, marker=marker))
    assert source.filter_reaches_tables(["5", "31"]) is bool(marker)
    found = source.resolve(["5", "7"])
    assert sorted(found["token_id"]) == ["5", "7"]
