"""Sessions with MariaDB and SQLite: read-only, in UTC, with limits; and what a refusal is in one sentence."""

import errno
import io
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import NullPool, create_engine
from support.databases import Database, OpenDatabase
from support.mariadbd import MariaDB
from support.waiting import wait_until

from token_pipelines.config import Origin
from token_pipelines.config import Source as SourceConfig
from token_pipelines.errors import ConfigError, SourceContractError, SourceError, TokenPipelinesError
from token_pipelines.policy import Window
from token_pipelines.source import spool
from token_pipelines.source.source import Source

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
WINDOW = Window(expires_after=NOW - timedelta(days=3), expires_before=NOW + timedelta(days=30))
TOO_LONG = "Reading the source took longer than source.deadline; raise it, or narrow the query."

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT count(*) FROM n"
SLOW = {"mariadb": "sleep(100) = 0", "sqlite": f"({ENDLESS}) > 0"}


def query(kind: str, condition: str = "1 = 1", **changes: str) -> str:
    ends = "timestamp('2026-11-21 09:00:00')" if kind == "mariadb" else "'2026-11-21 09:00:00'"
    columns = {
        "token_id": "id",
        "recipient_id": "7",
        "created_at": ends,
        "expires_at": ends,
        "token_name": "'n'",
        "recipient_name": "'Ada'",
        "email": "'ada@example.org'",
    } | changes
    selected = ", ".join(f"{what} AS {name}" for name, what in columns.items())
    return f"SELECT {selected} FROM tokens WHERE {ends} >= :expires_after AND {ends} < :expires_before AND {condition}"  # noqa: S608 -- a test's own


@pytest.fixture(params=["mariadb", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(open_database: OpenDatabase, kind: str) -> Database:
    database = open_database(kind)
    database.execute("CREATE TABLE tokens (id int)", "INSERT INTO tokens VALUES (1), (2)")
    return database


def refusal(read: Callable[[], object], kind: type[TokenPipelinesError] = SourceError) -> str:
    with pytest.raises(kind) as caught:
        read()
    said = str(caught.value)
    assert said.endswith(".")
    assert "\n" not in said
    assert caught.value.__suppress_context__, "no cause that may quote values"
    return said


def snapshot(source: Source) -> Callable[[], object]:
    return lambda: list(source.snapshot(WINDOW))


def test_mariadb_session_is_read_only_in_utc_with_limits(open_database: OpenDatabase) -> None:
    maria = open_database("mariadb")
    maria.execute("CREATE TABLE tokens (id int)", "INSERT INTO tokens VALUES (1)")
    names = ["time_zone", "max_statement_time", "lock_wait_timeout", "innodb_lock_wait_timeout", "tx_read_only"]
    shown = f"concat_ws(' ', {', '.join(f'@@{name}' for name in names)})"
    source = maria.source(
        query("mariadb", token_name=shown), timezone="UTC", statement_timeout="90s", lock_timeout="5s"
    )
    assert source.resolve(["1"])["token_name"].tolist() == ["+00:00 90.000000 5 5 ON"]


def test_mariadb_session_is_not_what_the_server_begins_it_with(
    mariadb_server: MariaDB, open_database: OpenDatabase
) -> None:
    """``init_connect`` is run for every user without a certain right, before any statement of theirs."""
    maria = open_database("mariadb")
    maria.execute("CREATE TABLE tokens (id int, name text CHARACTER SET utf8mb4)", "CREATE USER reader@localhost")
    maria.execute("INSERT INTO tokens VALUES (1, 'Jürgen 🦀'), (2, 'Łukasz')")
    maria.execute(f"GRANT SELECT ON {maria.url.database}.* TO reader@localhost")
    odd = "SET NAMES latin1, SESSION sql_select_limit = 1, SESSION time_zone = ''+09:00''"
    maria.execute(f"SET GLOBAL init_connect = '{odd}'")
    try:
        url = mariadb_server.url(maria.url.database, "reader").render_as_string(hide_password=False)
        source = maria.source(query("mariadb", token_name="name", created_at="now()"), url=url, timezone="UTC")
        assert [len(frame) for frame in source.snapshot(WINDOW)] == [2]
        assert sorted(source.resolve(["1", "2"])["token_name"]) == ["Jürgen 🦀", "Łukasz"]
    finally:
        maria.execute("SET GLOBAL init_connect = ''", "DROP USER reader@localhost")


def test_sqlite_file_is_opened_read_only(open_database: OpenDatabase, tmp_path: Path) -> None:
    lite = open_database("sqlite")
    lite.execute("CREATE TABLE tokens (id int)")
    (tmp_path / "tokens.db").chmod(0o444)
    before = sorted(path.name for path in tmp_path.iterdir())
    assert list(lite.source(query("sqlite"), timezone="UTC").snapshot(WINDOW)) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*before, "tokens.sql"})
    missing = lite.source(query("sqlite"), url="sqlite:///missing.db", timezone="UTC")
    assert refusal(snapshot(missing)).endswith(
        "/missing.db) cannot be opened; check the path in the URL and the file's permissions."
    )
    assert not (tmp_path / "missing.db").exists()


def test_path_of_sqlite_is_relative_to_the_config(open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    lite = open_database("sqlite")
    lite.execute("CREATE TABLE tokens (id int)", "INSERT INTO tokens VALUES (1)")
    monkeypatch.chdir("/")
    source = lite.source(query("sqlite"), url="sqlite:///tokens.db", timezone="UTC")
    assert [len(frame) for frame in source.snapshot(WINDOW)] == [1]


def test_reading_stops_at_the_deadline(database: Database, kind: str) -> None:
    source = database.source(query(kind, SLOW[kind]), timezone="UTC", deadline="1s")
    assert refusal(snapshot(source)) == TOO_LONG
    if kind == "mariadb":
        assert running(database) == 0


def running(database: Database) -> int:
    engine = create_engine(database.url, poolclass=NullPool)
    with engine.connect() as connection:
        asked = "SELECT count(*) FROM information_schema.processlist WHERE state = 'User sleep'"
        return int(connection.exec_driver_sql(asked).scalar_one())


def test_statement_that_takes_too_long_is_one_sentence(database: Database, kind: str) -> None:
    source = database.source(query(kind, SLOW[kind]), timezone="UTC", statement_timeout="1s")
    assert refusal(snapshot(source)).endswith(
        "took too long; raise source.statement_timeout, or add the index in docs/sources."
    )


def test_lock_of_a_migration_is_one_sentence(open_database: OpenDatabase) -> None:
    maria = open_database("mariadb")
    maria.execute("CREATE TABLE tokens (id int)")
    engine = create_engine(maria.url, poolclass=NullPool)
    with engine.connect() as migration:
        migration.exec_driver_sql("LOCK TABLES tokens WRITE")
        said = refusal(snapshot(maria.source(query("mariadb"), timezone="UTC", lock_timeout="1s")))
    assert said.endswith("waited too long for a lock; run again when the migration on it has finished.")


def test_lock_of_another_writer_is_one_sentence(open_database: OpenDatabase, tmp_path: Path) -> None:
    lite = open_database("sqlite")
    lite.execute("CREATE TABLE tokens (id int)")
    with closing(sqlite3.connect(tmp_path / "tokens.db", isolation_level=None)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        said = refusal(snapshot(lite.source(query("sqlite"), timezone="UTC", lock_timeout="1s")))
    assert said.endswith("waited too long for a lock; run again when what writes to it has finished.")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"token_name": "nam"}, {"mariadb": "Unknown column 'nam' in 'SELECT'", "sqlite": "no such column: nam"}),
        (
            {"condition": "id IN (SELECT x FROM tokns)"},
            {"mariadb": "Table '{name}.tokns' doesn't exist", "sqlite": "no such table: tokns"},
        ),
        (
            {"condition": "'hush' hush"},
            {
                "mariadb": "You have an error in your SQL syntax; check the manual that corresponds to your MariaDB"
                " server version for the right syntax to use near … at line 2",
                "sqlite": 'near "hush": syntax error',
            },
        ),
    ],
)
def test_query_that_the_database_refuses_is_blamed_in_its_words(
    database: Database, kind: str, broken: dict[str, str], said: dict[str, str]
) -> None:
    source = database.source(query(kind, **broken), timezone="UTC")
    words = said[kind].format(name=database.url.database)
    found = refusal(snapshot(source), SourceContractError)
    assert (
        found.lower()
        == f"The source query is not accepted by the database: {words}; fix source.query.".lower().replace(
            "in 'select'", "in 'field list'" if "field list" in found else "in 'select'"
        )
    )


@contextmanager
def kill_when_it_sleeps(maria: Database) -> Iterator[None]:
    """End the connection whose statement sleeps, as an administrator does."""

    def kill() -> None:
        engine = create_engine(maria.url, poolclass=NullPool)
        with engine.connect() as connection:
            asked = "SELECT id FROM information_schema.processlist WHERE state = 'User sleep'"
            wait_until(lambda: connection.exec_driver_sql(asked).scalar(), what="the sleeping statement")
            connection.exec_driver_sql(f"KILL {connection.exec_driver_sql(asked).scalar()}")

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    thread.join()


def test_connection_that_mariadb_ends_is_begun_again(open_database: OpenDatabase, tmp_path: Path) -> None:
    maria = open_database("mariadb")
    maria.execute("CREATE TABLE tokens (id int)", "INSERT INTO tokens VALUES (1)", "CREATE TABLE pace (s int)")
    maria.execute("INSERT INTO pace VALUES (3)")
    first = maria.source(query("mariadb", "sleep((SELECT s FROM pace)) = 0"), timezone="UTC")
    ended: list[float] = []

    def sleep(pause: float) -> None:
        ended.append(pause)
        maria.execute("UPDATE pace SET s = 0")

    config = {"url": maria.url.render_as_string(hide_password=False), "query": "tokens.sql", "timezone": "UTC"}
    origin = Origin(tmp_path / "token_pipelines.yaml")
    source = Source(SourceConfig.model_validate(config, context=origin), pauses=(0.1,), sleep=sleep)
    assert source.contract == first.contract
    with kill_when_it_sleeps(maria):
        assert [len(frame) for frame in source.snapshot(WINDOW)] == [1]
    assert ended == [0.1]


def test_database_that_does_not_exist_is_one_sentence(mariadb_server: MariaDB, open_database: OpenDatabase) -> None:
    url = mariadb_server.url("nowhere").set(password="hush-hush").render_as_string(hide_password=False)
    said = refusal(snapshot(open_database("sqlite").source(query("mariadb"), url=url, timezone="UTC")))
    assert "hush" not in said
    assert said.startswith("The database of source.url (root@localhost/nowhere) ")
    url = mariadb_server.url("nowhere").render_as_string(hide_password=False)
    said = refusal(snapshot(open_database("sqlite").source(query("mariadb"), url=url, timezone="UTC")))
    assert said.endswith("has no such database; check the name after the last / of the URL, or create the database.")


def test_missing_right_is_one_sentence(mariadb_server: MariaDB, open_database: OpenDatabase) -> None:
    maria = open_database("mariadb")
    maria.execute("CREATE TABLE tokens (id int)", "CREATE USER stranger@localhost")
    maria.execute(f"GRANT CREATE ON {maria.url.database}.* TO stranger@localhost")
    url = mariadb_server.url(maria.url.database, "stranger").render_as_string(hide_password=False)
    try:
        said = refusal(snapshot(maria.source(query("mariadb"), url=url, timezone="UTC")))
        assert said.endswith("refused the access; grant it: docs/failures.md lists the rights that are needed.")
        limited = maria.source(query("mariadb"), url=url, timezone="UTC", max_lag="1m")
        assert refusal(snapshot(limited)) == said
    finally:
        maria.execute("DROP USER stranger@localhost")


def test_server_that_is_no_replica_has_no_lag(open_database: OpenDatabase) -> None:
    maria = open_database("mariadb")
    maria.execute("CREATE TABLE tokens (id int)", "INSERT INTO tokens VALUES (1)")
    source = maria.source(query("mariadb"), timezone="UTC", max_lag="1m")
    assert source.reader.lag() is None
    assert [len(frame) for frame in source.snapshot(WINDOW)] == [1]


def test_database_that_nobody_serves_is_one_sentence(open_database: OpenDatabase) -> None:
    source = open_database("sqlite").source(
        query("mariadb"), url="mysql://reader:hush@127.0.0.1:1/registry", timezone="UTC"
    )
    assert refusal(snapshot(source)) == (
        "The database of source.url (reader@127.0.0.1:1/registry) cannot be reached; check that it runs and that this"
        " machine may connect."
    )


def test_file_that_is_no_database_is_one_sentence(open_database: OpenDatabase, tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("no database at all, only some words in a file " * 100, encoding="utf-8")
    source = open_database("sqlite").source(query("sqlite"), url="sqlite:///notes.db", timezone="UTC")
    assert refusal(snapshot(source)).endswith("is no SQLite file, or encrypted; check the path in the URL.")


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql"])
def test_missing_driver_is_one_sentence(
    open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    said = refusal(
        lambda: open_database("sqlite").source(query("mariadb"), url=f"{scheme}://reader@localhost/registry"),
        ConfigError,
    )
    driver = scheme if "+" in scheme else f"{scheme}+pymysql"
    assert said == (
        f"source.url is a {driver} database, whose driver is not installed; install token-pipelines[mysql]."
    )


def test_unknown_kind_of_database_is_one_sentence(open_database: OpenDatabase) -> None:
    said = refusal(lambda: open_database("sqlite").source(query("sqlite"), url="nosuch://localhost/x"), ConfigError)
    assert said.startswith("source.url is a nosuch database, whose driver is not installed; install the package ")


class FullDisk(io.BytesIO):
    """A file on a disk that is full. A real one cannot be had without mounting it."""

    def write(self, *_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_is_one_sentence(database: Database, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "open_file", FullDisk)
    said = refusal(snapshot(database.source(query(kind), timezone="UTC")))
    assert said.startswith("The temporary folder ")
    assert said.endswith(
        " is full, where a snapshot is kept while it is read; free its disk, or set TMPDIR to a folder with more room."
    )
