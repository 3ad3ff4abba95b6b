"""The statement of source.on_sent by itself, in each kind of database."""

import os
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, Engine, NullPool, create_engine, event, text
from support.pipeline import NOW, PipelineRunner, Registry
from support.smtpd import Smtpd
from support.waiting import wait_until
from support.write_back import MARK, SECOND, marks, not_written_back, two_people

from token_pipelines.config import Origin, Source
from token_pipelines.errors import ConfigError, SourceContractError, SourceError
from token_pipelines.source.databases.postgres import KEEPALIVES
from token_pipelines.source.on_sent import OnSentStatement


def write_back(url: str, folder: Path, on_sent: str = MARK, **more: Any) -> OnSentStatement:  # noqa: ANN401 -- keys of the config
    keys = {"url": url, "query": "crates_io", "on_sent": on_sent, **more}
    return OnSentStatement(Source.model_validate(keys, context=Origin(folder / "token_pipelines.yaml")))


def test_statement_from_a_file(registry: Registry, registry_url: str, tmp_path: Path) -> None:
    """Ids are compared in the column's own type; a semicolon at the end does not matter."""
    first, second, third = two_people(registry)
    (tmp_path / "mark.sql").write_text(f"{MARK};\n", encoding="utf-8")
    write_back(registry_url, tmp_path, "mark.sql").run([first, third], NOW + SECOND)
    assert marks(registry) == {first: NOW + SECOND, second: None, third: NOW + SECOND}


def test_statement_for_another_database(tmp_path: Path) -> None:
    """SQLite: the path is relative to the config's folder, the instant is written in UTC, ids match an integer."""
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE tokens (id integer PRIMARY KEY, warned_at text)")
        connection.execute("INSERT INTO tokens (id) VALUES (4711), (4712)")
    on_sent = "UPDATE tokens SET warned_at = :sent_at WHERE id IN :token_ids"
    write_back("sqlite:///app.db", tmp_path, on_sent).run(["4711"], datetime(2026, 11, 20, 9, tzinfo=UTC))
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        rows = connection.execute("SELECT * FROM tokens").fetchall()
    assert rows == [(4711, "2026-11-20 09:00:00.000000"), (4712, None)]
    with pytest.raises(SourceError, match=r"of source.url \(.*missing.db\)"):
        write_back("sqlite:///missing.db", tmp_path, on_sent).run(["4711"], NOW)
    assert not (tmp_path / "missing.db").exists()


def test_source_that_is_no_postgres_is_told_too(registry_url: str, tmp_path: Path) -> None:
    """The ledger keeps ids as text; the statement gets them as the source has them."""
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE tokens (id integer PRIMARY KEY, dies text, warned_at text)")
        connection.execute("INSERT INTO tokens VALUES (4711, '2026-11-22T09:00:00Z', NULL), (4712, '2027-11-22', NULL)")
    (tmp_path / "tokens.sql").write_text(SQLITE, encoding="utf-8")
    source = {
        "url": "sqlite:///app.db",
        "query": "tokens.sql",
        "on_sent": "UPDATE tokens SET warned_at = :sent_at WHERE id IN :token_ids",
    }
    with Smtpd() as relay:
        day = PipelineRunner(tmp_path, registry_url, relay.port, source=source).run(NOW)
    assert (day.numbers, set(not_written_back(day).values())) == ({"sent": 1}, {0})
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        assert connection.execute("SELECT id, warned_at FROM tokens").fetchall() == [
            (4711, "2026-11-20 09:00:00.000000"),
            (4712, None),
        ]


SQLITE = """
SELECT id AS token_id, 7 AS recipient_id, '2026-01-01T00:00:00Z' AS created_at, dies AS expires_at,
    'ci' AS token_name, 'Ada' AS recipient_name, 'ada@example.org' AS email
FROM tokens WHERE dies >= :expires_after AND dies < :expires_before
"""


def test_statement_for_mariadb(mariadb_database: URL, tmp_path: Path) -> None:
    """The session is in UTC, whatever kind of column the instant goes to; a refusal names columns, and no value."""
    engine = create_engine(mariadb_database.set(drivername="mariadb+pymysql"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE tokens (id bigint PRIMARY KEY, at datetime(6), stamp timestamp(6) NULL)"))
        connection.execute(text("INSERT INTO tokens (id) VALUES (1), (2), (3)"))
    url = mariadb_database.set(drivername="mysql").render_as_string(hide_password=False)
    on_sent = "UPDATE tokens SET at = :sent_at, stamp = :sent_at WHERE id IN :token_ids"
    write_back(url, tmp_path, on_sent).run([1, 3], NOW)
    with engine.connect() as connection:
        connection.exec_driver_sql("SET time_zone = '+00:00'")
        rows = connection.execute(text("SELECT * FROM tokens")).all()
    there = NOW.replace(tzinfo=None)
    assert [tuple(row) for row in rows] == [(1, there, there), (2, None, None), (3, there, there)]
    with pytest.raises(SourceError, match=r"Unknown column 'nowhere' in .*; fix the statement"):
        write_back(url, tmp_path, on_sent.replace("stamp =", "nowhere =")).run([1], NOW)


@pytest.mark.parametrize("column", ["uuid", "text", "bigint", "bytea"])
def test_trying_it_fits_ids_of_every_type(registry: Registry, registry_url: str, tmp_path: Path, column: str) -> None:
    registry.execute(f"CREATE TABLE marks (id {column}, at timestamptz)")
    write_back(
        registry_url, tmp_path, "INSERT INTO marks SELECT id, :sent_at FROM marks WHERE id IN :token_ids"
    ).try_out(NOW)
    with pytest.raises(SourceError, match='column "ad" does not exist; fix the statement'):
        write_back(registry_url, tmp_path, "UPDATE marks SET at = now() WHERE ad IN :token_ids").try_out(NOW)


def test_trying_it_changes_nothing_in_mariadb(mariadb_database: URL, tmp_path: Path) -> None:
    engine = create_engine(mariadb_database.set(drivername="mariadb+pymysql"), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE tokens (id bigint, at datetime(6) NULL)"))
        connection.execute(text("INSERT INTO tokens (id) VALUES (0), (1), (NULL)"))
    url = mariadb_database.set(drivername="mysql").render_as_string(hide_password=False)
    write_back(url, tmp_path, "UPDATE tokens SET at = :sent_at WHERE id IN :token_ids").try_out(NOW)
    write_back(url, tmp_path, "INSERT INTO tokens SELECT 9, max(id IN :token_ids) FROM tokens").try_out(NOW)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*), count(at) FROM tokens")).one() == (3, 0)
    with pytest.raises(SourceError, match=r"Unknown column 'ad' in .*; fix the statement"):
        write_back(url, tmp_path, "UPDATE tokens SET ad = 1 WHERE id IN :token_ids").try_out(NOW)


def test_trying_it_changes_nothing_in_sqlite(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("CREATE TABLE tokens (id integer, warned_at text)")
        connection.execute("INSERT INTO tokens (id) VALUES (0), (1), (NULL)")
    on_sent = "UPDATE tokens SET warned_at = :sent_at WHERE id IN :token_ids"
    write_back("sqlite:///app.db", tmp_path, on_sent).try_out(NOW)
    write_back("sqlite:///app.db", tmp_path, "INSERT INTO tokens SELECT 9, max(id IN :token_ids) FROM tokens").try_out(
        NOW
    )
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        assert connection.execute("SELECT count(*), count(warned_at) FROM tokens").fetchall() == [(3, 0)]
    with pytest.raises(SourceError, match="no such column: ad; fix the statement"):
        write_back("sqlite:///app.db", tmp_path, on_sent.replace("id IN", "ad IN")).try_out(NOW)


@pytest.mark.parametrize(
    ("on_sent", "error", "sentence"),
    [
        ("UPDATE t SET at = :sent_at", SourceContractError, "does not use :token_ids; name the tokens with"),
        ("UPDATE t SET at = :now WHERE id IN :token_ids", SourceContractError, "asks for :now; the only binds are"),
        ("UPDATE t SET at = 1 -- :token_ids", SourceContractError, "does not use :token_ids; name the tokens with"),
        ("UPDATE t SET at = ':token_ids'", SourceContractError, "does not use :token_ids; name the tokens with"),
        ("UPDATE t SET a = 1 WHERE id = ANY(:token_ids)", SourceContractError, "after something else than IN; write"),
        ("UPDATE t SET a = 1 WHERE id IN (SELECT unnest(:token_ids))", SourceContractError, "something else than IN;"),
        ("UPDATE t SET a = 1 WHERE id IN :token_ids::int[]", SourceContractError, "casts :token_ids; write id IN :t"),
        (f"{MARK}; {MARK}", SourceContractError, "holds more than one statement; keep one, or call a function"),
        ("absent.sql", ConfigError, "absent.sql cannot be read (FileNotFoundError); check the path"),
    ],
)
def test_statement_that_cannot_work_is_a_fault_of_the_config(
    tmp_path: Path, on_sent: str, error: type[ConfigError], sentence: str
) -> None:
    with pytest.raises(error) as raised:
        write_back("postgresql://reader@localhost/registry", tmp_path, on_sent)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    "on_sent",
    [
        MARK.replace(":sent_at", ":sent_at::timestamptz"),
        MARK.replace(":token_ids", "(:token_ids)"),
        f"{MARK.replace(':token_ids', '( :token_ids )')}; -- ids that are :due, not '; all",
        f"/* of :notices; */ {MARK} AND name <> ':x; y'",
    ],
)
def test_statement_in_any_natural_spelling(registry: Registry, registry_url: str, tmp_path: Path, on_sent: str) -> None:
    first, second, third = two_people(registry)
    write_back(registry_url, tmp_path, on_sent).run([first, third], NOW + SECOND)
    assert marks(registry) == {first: NOW + SECOND, second: None, third: NOW + SECOND}


def test_refusal_repeats_no_value(registry: Registry, registry_url: str, tmp_path: Path) -> None:
    """A constraint's message holds the row; where nothing may be written, the setting is named."""
    token, *_ = two_people(registry)
    registry.execute("ALTER TABLE api_tokens ADD CHECK (expiry_notification_at < '2000-01-01')")
    with pytest.raises(
        SourceError, match=r"source.on_sent failed in .*: SQLSTATE 23514, CheckViolation; fix the statement"
    ):
        write_back(registry_url, tmp_path).run([token], NOW)
    registry.execute(
        "ALTER DATABASE "
        + registry_url.partition("?")[0].rpartition("/")[2]
        + " SET default_transaction_read_only = on"
    )
    with pytest.raises(
        SourceError,
        match="is a replica or read-only; point the URL at the primary, or turn off default_transaction_read",
    ):
        write_back(registry_url, tmp_path).run([token], NOW)


def test_server_that_hangs_is_left_when_its_own_timeout_is_over(
    registry: Registry, registry_url: str, tmp_path: Path
) -> None:
    """A stopped server ends nothing by itself, and its kernel still answers keepalives."""
    token, *_ = two_people(registry)
    sleeping = "UPDATE api_tokens SET name = name || pg_sleep(60) WHERE id IN :token_ids"
    hanging = write_back(registry_url, tmp_path, sleeping, statement_timeout=5 * SECOND)
    with ThreadPoolExecutor(1) as pool:
        telling = pool.submit(hanging.run, [token], NOW)
        wait_until(lambda: backends(registry) != [], seconds=5, what="the statement")
        [backend] = backends(registry)
        os.kill(backend, signal.SIGSTOP)
        try:
            error = telling.exception(timeout=60)
        finally:
            os.kill(backend, signal.SIGCONT)
    assert isinstance(error, SourceError)
    assert error.unreachable
    assert str(error).endswith(") did not answer in time; check that it runs and that it is not overloaded.")


def backends(registry: Registry) -> list[int]:
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'token-pipelines on_sent' AND query ~ 'sleep'"
    return [pid for (pid,) in registry.execute(query)]


def test_connection_notices_a_server_that_has_vanished(registry: Registry, registry_url: str, tmp_path: Path) -> None:
    token, *_ = two_people(registry)
    seen: dict[str, str] = {}

    def look(connection: Any, _: object) -> None:  # noqa: ANN401 -- of the driver, if it is psycopg's
        seen.update(connection.info.get_parameters())

    event.listen(Engine, "connect", look)
    try:
        write_back(registry_url, tmp_path).run([token], NOW)
    finally:
        event.remove(Engine, "connect", look)
    assert seen.items() >= KEEPALIVES.items()


def test_password_of_the_writing_account_stays_out_of_the_file(tmp_path: Path) -> None:
    house = PipelineRunner(
        tmp_path, "postgresql:///r", 1, source={"on_sent": MARK, "on_sent_url": "postgresql://w:s3cret@db/r"}
    )
    with pytest.raises(ConfigError) as raised:
        _ = house.config
    assert str(raised.value).endswith(
        "source.on_sent_url holds a password, which does not belong in the file; "
        "set TOKEN_PIPELINES__SOURCE__ON_SENT_URL in the environment."
    )
