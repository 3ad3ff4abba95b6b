"""The operator's own statement after sending: run for what was sent, and never at the cost of the ledger."""

import logging
import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from smtpd import Smtpd
from typing import Any, Self

import pytest
from pipeline import DAY, NOW, Day, PipelineRunner, Registry
from pydantic import SecretStr
from sqlalchemy import URL, Engine, NullPool, create_engine, event, text
from waiting import wait_until

from token_pipelines.config import Source
from token_pipelines.delivery import on_sent as writing_back
from token_pipelines.errors import ConfigError, LedgerError, SourceContractError, SourceError
from token_pipelines.source.databases.postgres import KEEPALIVES
from token_pipelines.source.on_sent import OnSentStatement

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
MARK = "UPDATE api_tokens SET expiry_notification_at = :sent_at WHERE id IN :token_ids"

MakePipeline = Callable[..., PipelineRunner]


@pytest.fixture
def pipeline(tmp_path: Path, registry_url: str) -> MakePipeline:
    """Configure a pipeline with this statement; keywords change the config's sections."""

    def make(relay: Smtpd, on_sent: str | None = MARK, **sections: Any) -> PipelineRunner:  # noqa: ANN401 -- YAML
        source = {"on_sent": on_sent} | sections.pop("source", {})
        return PipelineRunner(tmp_path, registry_url, relay.port, source=source, **sections)

    return make


def marks(registry: Registry) -> dict[str, datetime | None]:
    rows = registry.execute("SELECT id, expiry_notification_at FROM api_tokens")
    return {str(token_id): at for token_id, at in rows}


def not_written_back(day: Day) -> dict[str, int | None]:
    return {tier: report.not_written_back for tier, report in day.tiers.items()}


def two_people(registry: Registry) -> tuple[str, str, str]:
    """Ada has two tokens that are due tomorrow, Bob one in a week."""
    ada = registry.user("ada", email="ada@example.org")
    bob = registry.user("bob", email="bob@example.org")
    return (
        registry.token(ada, expires_at=NOW + 12 * HOUR),
        registry.token(ada, expires_at=NOW + 13 * HOUR),
        registry.token(bob, expires_at=NOW + 7 * DAY),
    )


def test_source_is_told_of_what_was_sent(registry: Registry, pipeline: MakePipeline) -> None:
    """Of every token of a notice, and of no other; and once only."""
    told = two_people(registry)
    other = registry.token(registry.user("carol"), expires_at=NOW + 12 * HOUR)
    with Smtpd() as relay:
        house = pipeline(relay)
        first = house.run(NOW)
        registry.execute("UPDATE api_tokens SET expiry_notification_at = NULL WHERE id = %s", int(told[0]))
        again = house.run(NOW + HOUR)
    assert (first.numbers, again.numbers) == ({"sent": 2}, {})
    assert not_written_back(first) == dict.fromkeys(first.tiers, 0)
    assert marks(registry) == {told[0]: None, told[1]: NOW, told[2]: NOW, other: None}


def test_our_own_mark_does_not_silence_the_next_tier(registry: Registry, pipeline: MakePipeline) -> None:
    """The preset reads it as last_notified_at: what the ledger itself has sent counts by the ledger alone."""
    token = registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 7 * DAY + HOUR)
    with Smtpd() as relay:
        house = pipeline(relay)
        sent = {day: house.run(NOW + day * DAY).numbers for day in range(9)}
    assert {day: numbers for day, numbers in sent.items() if numbers} == {
        0: {"sent": 1},
        5: {"sent": 1},
        8: {"sent": 1},
    }
    assert marks(registry) == {token: NOW + 8 * DAY}


@pytest.mark.parametrize("delivery", [{"mode": "redirect", "redirect_to": "us@example.org"}, {"mode": "dry_run"}])
def test_source_is_told_of_live_notices_only(
    registry: Registry, pipeline: MakePipeline, delivery: dict[str, Any]
) -> None:
    tokens = two_people(registry)
    with Smtpd() as relay:
        day = pipeline(relay, delivery=delivery | {"retry_pauses": []}).run(NOW)
        assert len(relay.accepted) == (2 if delivery["mode"] == "redirect" else 0)
    assert marks(registry) == dict.fromkeys(tokens)
    assert set(not_written_back(day).values()) == {None}


def test_failure_loses_nothing_and_a_later_run_does_it(
    registry: Registry, pipeline: MakePipeline, caplog: pytest.LogCaptureFixture
) -> None:
    """The tiers stay delivered; what was missed is counted, said once, and done when the cause is mended."""
    tokens = two_people(registry)
    registry.execute("ALTER TABLE api_tokens RENAME COLUMN expiry_notification_at TO elsewhere")
    with Smtpd() as relay, caplog.at_level(logging.ERROR):
        house = pipeline(relay, source={"query": "plain.sql"})
        (house.path.parent / "plain.sql").write_text(PLAIN, encoding="utf-8")
        broken = house.run(NOW)
        still = house.run(NOW + HOUR)
        registry.execute("ALTER TABLE api_tokens RENAME COLUMN elsewhere TO expiry_notification_at")
        mended = house.run(NOW + 2 * HOUR, tiers=["month"])
    assert ([day.numbers for day in (broken, still, mended)], broken.troubles) == ([{"sent": 2}, {}, {}], [])
    assert {entry["state"] for entry in house.history()} == {"sent"}
    assert not_written_back(broken) == {"expired": 0, "day": 1, "week": 2, "month": 2}
    assert set(not_written_back(still).values()) == {2}
    assert not_written_back(mended) == {"month": 0}
    assert marks(registry) == dict.fromkeys(tokens, NOW)
    fault = broken.tiers["day"].write_back_fault
    assert 'column "expiry_notification_at" of relation "api_tokens" does not exist; mend the statement' in fault
    said = [record.getMessage() for record in caplog.records if record.name == "token_pipelines.delivery.on_sent"]
    assert said == [f"The source was not told of what was sent; later runs try again. {fault}"]


PLAIN = """
SELECT api_tokens.id AS token_id, user_id AS recipient_id, created_at, expired_at AS expires_at,
    api_tokens.name AS token_name, NULL::text AS recipient_name, emails.email
FROM api_tokens LEFT JOIN emails USING (user_id)
WHERE expired_at >= :expires_after AND expired_at < :expires_before
"""


def test_unreachable_database_stops_no_tier(registry: Registry, pipeline: MakePipeline) -> None:
    two_people(registry)
    with Smtpd() as relay:
        day = pipeline(relay, source={"on_sent_url": "postgresql://writer@127.0.0.1:1/registry"}).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 2}, [])
    assert not_written_back(day) == {"expired": 0, "day": 1, "week": 2, "month": 2}
    assert day.tiers["week"].write_back_fault == (
        "The database of source.on_sent_url (writer@127.0.0.1:1/registry) cannot be reached; check that it runs and "
        "that this machine may connect."
    )


def test_a_statement_set_later_is_told_of_what_was_sent_before(registry: Registry, pipeline: MakePipeline) -> None:
    """As after a kill between sending and telling: the ledger knows what the source does not."""
    tokens = two_people(registry)
    with Smtpd() as relay:
        pipeline(relay, on_sent=None).run(NOW)
        assert marks(registry) == dict.fromkeys(tokens)
        pipeline(relay).run(NOW + HOUR)
    assert marks(registry) == dict.fromkeys(tokens, NOW)


# What the source refuses of some tokens only

ODD = "ALTER TABLE api_tokens ADD CHECK (expiry_notification_at IS NULL OR NOT starts_with(name, 'odd'))"


def crowd(registry: Registry, *names: str) -> list[str]:
    """A token with each name, each of another person, all due in the same tier."""
    people = [registry.user(f"user{n}", email=f"user{n}@example.org") for n in range(len(names))]
    return [
        registry.token(user, expires_at=NOW + 12 * HOUR, name=name) for user, name in zip(people, names, strict=True)
    ]


@pytest.mark.parametrize("odd", [{0}, {6}, {12}, {0, 12}, {3, 4, 5}, set(range(12))], ids=str)
def test_token_that_is_refused_keeps_no_other_from_being_told(
    registry: Registry, pipeline: MakePipeline, odd: set[int]
) -> None:
    tokens = crowd(registry, *(f"odd {n}" if n in odd else f"even {n}" for n in range(13)))
    registry.execute(ODD)
    with Smtpd() as relay:
        house = pipeline(relay)
        days = [house.run(NOW), house.run(NOW + HOUR)]
    assert marks(registry) == {token: None if n in odd else NOW for n, token in enumerate(tokens)}
    assert [(day.numbers, day.troubles) for day in days] == [({"sent": 13}, []), ({}, [])]
    assert not_written_back(days[0]) == {"expired": 0} | dict.fromkeys(("day", "week", "month"), len(odd))
    assert set(not_written_back(days[1]).values()) == {len(odd)}


def test_refusal_names_a_token_and_is_said_once(
    registry: Registry, pipeline: MakePipeline, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = crowd(registry, "even 1", "odd", "even 2")
    registry.execute(ODD)
    with Smtpd() as relay, caplog.at_level(logging.ERROR):
        house = pipeline(relay)
        days = [house.run(NOW), house.run(NOW + HOUR)]
    faults = {report.write_back_fault for day in days for report in day.tiers.values()} - {""}
    [fault] = faults
    assert fault.endswith(
        ": SQLSTATE 23514, CheckViolation; fix the statement, or the rights of the account. "
        f"Refused by itself: token_id {tokens[1]}, for one."
    )
    said = [record.getMessage() for record in caplog.records if record.name == "token_pipelines.delivery.on_sent"]
    assert said == [f"The source was not told of what was sent; later runs try again. {fault}"]


def test_notice_with_a_refused_token_tells_of_its_others(registry: Registry, pipeline: MakePipeline) -> None:
    """It stays to be told, as a whole; but the others are not kept waiting."""
    ada = registry.user("ada", email="ada@example.org")
    tokens = [registry.token(ada, expires_at=NOW + 12 * HOUR, name=name) for name in ("even 1", "odd", "even 2")]
    registry.execute(ODD)
    with Smtpd() as relay:
        day = pipeline(relay).run(NOW)
    assert (day.numbers, day.tiers["day"].not_written_back) == ({"sent": 1}, 1)
    assert marks(registry) == {tokens[0]: NOW, tokens[1]: None, tokens[2]: NOW}


def test_pages_after_a_refusal_are_told_too(
    registry: Registry, pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing_back, "PAGE", 2)
    old = crowd(registry, "odd 1", "odd 2", "even 1")
    with Smtpd() as relay:
        pipeline(relay, on_sent=None).run(NOW)
        new = crowd(registry, "even 2", "odd 3", "even 3")
        pipeline(relay, on_sent=None).run(NOW + HOUR)
        registry.execute(ODD)
        day = pipeline(relay).run(NOW + 2 * HOUR, tiers=["month"])
    assert marks(registry) == dict.fromkeys([*old, *new]) | {old[2]: NOW, new[0]: NOW + HOUR, new[2]: NOW + HOUR}
    assert not_written_back(day) == {"month": 3}


COUNTED = (
    "CREATE SEQUENCE tries",
    """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM nextval('tries'); RAISE 'no'; END $$
    """,
    "CREATE TRIGGER refuse BEFORE UPDATE ON api_tokens FOR EACH STATEMENT EXECUTE FUNCTION refuse()",
)
"""Refuses everything, and counts how often: a sequence is not rolled back."""


@pytest.mark.parametrize(("limit", "value", "tries"), [("REFUSALS_IN_A_ROW", 5, 5), ("REFUSALS_S", 0.0, 1)])
def test_statement_that_is_refused_always_is_not_tried_for_ever(
    registry: Registry,
    pipeline: MakePipeline,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: float,
    tries: int,
) -> None:
    """Nor for long: a refusal after a wait for a lock would cost that wait again for each half."""
    monkeypatch.setattr(writing_back, limit, value)
    crowd(registry, *(f"token {n}" for n in range(20)))
    with Smtpd() as relay:
        pipeline(relay, on_sent=None).run(NOW)
        for statement in COUNTED:
            registry.execute(statement)
        day = pipeline(relay).run(NOW + HOUR, tiers=["month"])
    assert registry.execute("SELECT last_value FROM tries") == [(tries,)]
    assert not_written_back(day) == {"month": 20}
    assert ": SQLSTATE P0001, RaiseException; fix the statement, or the rights of the account." in (
        day.tiers["month"].write_back_fault
    )


def test_database_that_is_away_is_asked_once(
    registry: Registry, pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By each run of a tier: one that does not answer costs a timeout each time."""
    monkeypatch.setattr(writing_back, "PAGE", 2)
    crowd(registry, *(f"token {n}" for n in range(5)))
    with Smtpd() as relay, HangsUp() as server:
        pipeline(relay, on_sent=None).run(NOW)
        day = pipeline(relay, source={"on_sent_url": server.url}).run(NOW + HOUR, tiers=["week", "month"])
    assert server.asked == 2
    assert not_written_back(day) == {"week": 5, "month": 5}


class HangsUp:
    """Takes connections, and ends each at once."""

    def __enter__(self) -> Self:
        self.asked = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"postgresql://writer@127.0.0.1:{self._listening.getsockname()[1]}/registry?gssencmode=disable"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection:
                if not connection.recv(1024):
                    return
            self.asked += 1

    def __exit__(self, *_: object) -> None:
        socket.create_connection(self._listening.getsockname()).close()
        self._thread.join()
        self._listening.close()


@pytest.mark.parametrize("error", [LedgerError("The ledger is away."), RuntimeError("a notice pruned meanwhile")])
def test_ledger_that_does_not_keep_it_stops_no_tier(
    registry: Registry, pipeline: MakePipeline, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What the source knows and the ledger does not know of is told again: it counts as not written back."""
    tokens = two_people(registry)

    def keep(_: object) -> None:
        raise error

    with Smtpd() as relay:
        house = pipeline(relay)
        with monkeypatch.context() as patched:
            patched.setattr(house.parts(NOW).ledger.written_back, "keep", keep)
            day = house.run(NOW)
        again = house.run(NOW + HOUR)
    assert (day.numbers, day.troubles) == ({"sent": 2}, [])
    assert not_written_back(day) == {"expired": 0, "day": 1, "week": 2, "month": 2}
    ours = "What the source was told could not be kept in the ledger (RuntimeError at keep:"
    assert day.tiers["week"].write_back_fault.startswith((str(error), ours))
    assert set(not_written_back(again).values()) == {0}
    assert marks(registry) == dict.fromkeys(tokens, NOW)


def test_mark_does_not_go_back_to_an_earlier_notice(registry: Registry, pipeline: MakePipeline) -> None:
    """The source was not told of the month's notice; when the week's is sent, the later instant stands."""
    token = registry.token(registry.user("ada", email="ada@example.org"), expires_at=NOW + 30 * DAY)
    with Smtpd() as relay:
        first = pipeline(relay, on_sent=None).run(NOW)
        second = pipeline(relay).run(NOW + 23 * DAY, tiers=["week"])
    assert (first.tiers["month"].sent, second.tiers["week"].sent) == (1, 1)
    assert marks(registry) == {token: NOW + 23 * DAY}
    assert set(not_written_back(second).values()) == {0}


# The statement by itself


def write_back(url: str, folder: Path, on_sent: str = MARK, **more: Any) -> OnSentStatement:  # noqa: ANN401 -- keys of the config
    return OnSentStatement(Source(url=SecretStr(url), query="crates_io", on_sent=on_sent, **more), folder)


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
    with pytest.raises(SourceError, match=r"Unknown column 'nowhere' in .*; mend the statement"):
        write_back(url, tmp_path, on_sent.replace("stamp =", "nowhere =")).run([1], NOW)


@pytest.mark.parametrize("column", ["uuid", "text", "bigint", "bytea"])
def test_trying_it_fits_ids_of_every_type(registry: Registry, registry_url: str, tmp_path: Path, column: str) -> None:
    registry.execute(f"CREATE TABLE marks (id {column}, at timestamptz)")
    write_back(
        registry_url, tmp_path, "INSERT INTO marks SELECT id, :sent_at FROM marks WHERE id IN :token_ids"
    ).try_out(NOW)
    with pytest.raises(SourceError, match='column "ad" does not exist; mend the statement'):
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
    with pytest.raises(SourceError, match=r"Unknown column 'ad' in .*; mend the statement"):
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
    with pytest.raises(SourceError, match="no such column: ad; mend the statement"):
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
    """A constraint's message holds the row; a read-only account's says only what it may not do."""
    token, *_ = two_people(registry)
    registry.execute("ALTER TABLE api_tokens ADD CHECK (expiry_notification_at < '2000-01-01')")
    with pytest.raises(
        SourceError, match=r"source.on_sent failed in .*: SQLSTATE 23514, CheckViolation; mend the statement"
    ):
        write_back(registry_url, tmp_path).run([token], NOW)
    registry.execute(
        "ALTER DATABASE "
        + registry_url.partition("?")[0].rpartition("/")[2]
        + " SET default_transaction_read_only = on"
    )
    with pytest.raises(
        SourceError, match="cannot execute UPDATE in a read-only transaction; mend the statement, or the"
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
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'token-pipelines write-back' AND query ~ 'sleep'"
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
