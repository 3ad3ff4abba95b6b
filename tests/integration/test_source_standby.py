"""A real standby, streaming from a real primary: what breaks a read there, and that it is begun again."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, LiteralString

import pandas as pd
import psycopg
import pytest
from support.waiting import wait_until

from token_pipelines.config import Origin
from token_pipelines.config import Source as SourceConfig
from token_pipelines.demo import postgres_files as files
from token_pipelines.demo.postgres import EmbeddedPostgres
from token_pipelines.errors import SourceError
from token_pipelines.policy import Window
from token_pipelines.source.source import Source

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
WINDOW = Window(expires_after=NOW, expires_before=NOW + timedelta(days=30))
TOKENS: Final = 200
PATIENCE_S: Final = 30
PAUSES_S: Final = (0.5, 1.0, 2.0, 5.0, 10.0)

SETTINGS = {"wal_level": "replica", "max_wal_senders": "4", "autovacuum": "off", "shared_buffers": "32MB"}
IMPATIENT = {"hot_standby_feedback": "off", "max_standby_streaming_delay": "100ms", "wal_retrieve_retry_interval": "1s"}

CREATE: LiteralString = """
CREATE TABLE tokens AS
    SELECT id, timestamptz '2026-11-21 09:00Z' AS ends, id % 2 = 0 AS dead FROM generate_series(1, 200) AS id;
CREATE TABLE pace AS SELECT 0.05 AS seconds
"""
QUERY = """
SELECT id AS token_id, 7 AS recipient_id, ends - interval '1 year' AS created_at, ends AS expires_at,
    'n' AS token_name, 'Ada' AS recipient_name, 'ada@example.org' AS email
FROM tokens
WHERE ends >= :expires_after AND ends < :expires_before AND pg_sleep((SELECT seconds FROM pace)) IS NOT NULL
"""
"""A read of ten seconds, as long as the pace is not changed."""


@dataclass
class Pair:
    """A primary and its standby."""

    primary: EmbeddedPostgres
    standby: EmbeddedPostgres

    def on_primary(self, *statements: LiteralString) -> None:
        with psycopg.connect(self.primary.url(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def on_standby(self, statement: LiteralString) -> Any:  # noqa: ANN401 -- the first value of the first row
        with psycopg.connect(self.standby.url(), autocommit=True) as connection:
            row = connection.execute(statement).fetchone()
            return row and row[0]

    def catch_up(self) -> None:
        with psycopg.connect(self.primary.url()) as connection:
            [position] = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone() or [""]

        def replayed() -> bool:
            with psycopg.connect(self.standby.url()) as standby:
                row = standby.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", [position]).fetchone()
                return bool(row and row[0])

        wait_until(replayed, seconds=PATIENCE_S, what="the standby's replay")

    def wait_for_read(self) -> None:
        """Wait until the source's statement runs on the standby."""
        running: LiteralString = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'token-pipelines source'"
            " AND state = 'active' AND wait_event = 'PgSleep'"
        )
        wait_until(lambda: self.on_standby(running), seconds=PATIENCE_S, what="the read on the standby")


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="tp-pair-")))
        folder.chmod(0o755)  # the servers' user passes through
        primary = EmbeddedPostgres(folder / "primary", settings=SETTINGS)
        with primary, psycopg.connect(primary.url()) as connection:
            [data] = connection.execute("SHOW data_directory").fetchone() or [""]
        copy_data(Path(data), folder / "standby")
        stack.enter_context(primary)
        stack.callback(shutil.rmtree, primary.home, ignore_errors=True)
        follow = {"primary_conninfo": f"host={files.socket_folder(primary.home)} port={files.PORT} user=postgres"}
        standby = stack.enter_context(EmbeddedPostgres(folder / "standby", settings=SETTINGS | IMPATIENT | follow))
        stack.callback(shutil.rmtree, standby.home, ignore_errors=True)
        yield Pair(primary, standby)


def copy_data(source: Path, folder: Path) -> None:
    """Copy a stopped primary's files to where the standby's server looks for its own."""
    folder.mkdir(mode=0o755)
    data = folder / "data"
    shutil.copytree(source, data)
    (data / "standby.signal").touch()
    owner = source.stat()
    for path in (data, *data.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)
    data.chmod(0o700)


@pytest.fixture
def tokens(pair: Pair) -> Pair:
    pair.on_primary("DROP TABLE IF EXISTS tokens, pace", CREATE)
    pair.catch_up()
    return pair


@dataclass
class Reading:
    """A source on the standby, and how often it paused."""

    source: Source
    pauses: list[float]

    def start(self) -> Callable[[], pd.DataFrame]:
        """Begin a snapshot in another thread; what is returned waits for it."""
        found: list[pd.DataFrame] = []
        thread = threading.Thread(target=lambda: found.extend(self.source.snapshot(WINDOW)))
        thread.start()

        def finish() -> pd.DataFrame:
            thread.join(PATIENCE_S * 2)
            assert found, "the snapshot failed"
            return pd.concat(found)

        return finish


def read(pair: Pair, folder: Path, pauses: tuple[float, ...] = PAUSES_S, **settings: object) -> Reading:
    (folder / "tokens.sql").write_text(QUERY, encoding="utf-8")
    origin = Origin(folder / "token_pipelines.yaml")
    keys = {"url": pair.standby.url(), "query": "tokens.sql"} | settings
    config = SourceConfig.model_validate(keys, context=origin)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        time.sleep(seconds)

    return Reading(Source(config, pauses=pauses, sleep=sleep), slept)


def test_read_that_conflicts_with_vacuum_is_begun_again(tokens: Pair, tmp_path: Path) -> None:
    reading = read(tokens, tmp_path)
    finish = reading.start()
    tokens.wait_for_read()
    tokens.on_primary("UPDATE pace SET seconds = 0", "DELETE FROM tokens WHERE dead", "VACUUM tokens")
    found = finish()
    assert found["token_id"].astype(int).tolist() == list(range(1, TOKENS, 2))
    assert reading.pauses == [PAUSES_S[0]]


def test_read_that_an_alter_table_breaks_is_begun_again(tokens: Pair, tmp_path: Path) -> None:
    reading = read(tokens, tmp_path)
    finish = reading.start()
    tokens.wait_for_read()
    tokens.on_primary("UPDATE pace SET seconds = 0", "ALTER TABLE tokens ADD COLUMN note text DEFAULT 'new'")
    found = finish()
    assert found["token_id"].astype(int).tolist() == list(range(1, TOKENS + 1))
    assert reading.pauses == [PAUSES_S[0]]


def test_read_on_a_standby_that_restarts_is_begun_again(tokens: Pair, tmp_path: Path) -> None:
    reading = read(tokens, tmp_path)
    finish = reading.start()
    tokens.wait_for_read()
    tokens.on_primary("UPDATE pace SET seconds = 0")
    tokens.catch_up()
    tokens.standby.restart()
    assert len(finish()) == TOKENS
    assert reading.pauses == list(PAUSES_S[: len(reading.pauses)])
    assert reading.pauses


def test_read_that_is_broken_again_and_again_is_given_up(tokens: Pair, tmp_path: Path) -> None:
    caught: list[SourceError] = []
    reading = read(tokens, tmp_path, pauses=())

    def snapshot() -> None:
        try:
            list(reading.source.snapshot(WINDOW))
        except SourceError as error:
            caught.append(error)

    thread = threading.Thread(target=snapshot)
    thread.start()
    tokens.wait_for_read()
    tokens.on_primary("ALTER TABLE tokens ADD COLUMN note text")
    thread.join(PATIENCE_S)
    assert str(caught[0]).endswith(
        " is a replica that broke off the read; run again, or raise max_standby_streaming_delay there."
    )


def test_lag_over_the_limit_is_refused(tokens: Pair, tmp_path: Path) -> None:
    tokens.on_primary("UPDATE pace SET seconds = 0")
    tokens.catch_up()
    source = read(tokens, tmp_path, max_lag="1s").source
    assert source.reader.lag() == timedelta(), "an idle primary is no lag, however old its last transaction"

    tokens.on_standby("SELECT pg_wal_replay_pause()")
    tokens.on_primary("DELETE FROM tokens WHERE dead")
    wait_until(lambda: (source.reader.lag() or timedelta()) > timedelta(seconds=2), what="a lag of 2 s")
    for broken in (lambda: list(source.snapshot(WINDOW)), lambda: source.resolve(["1"])):
        with pytest.raises(SourceError) as caught:
            broken()
        said = str(caught.value)
        assert said.startswith("Replica lag over the limit: the database of source.url is ")
        assert said.endswith(
            "s behind, and source.max_lag is 1s; wait until it has caught up, read the primary, or raise the limit."
        )

    tokens.on_standby("SELECT pg_wal_replay_resume()")
    tokens.catch_up()
    assert [len(frame) for frame in source.snapshot(WINDOW)] == [TOKENS // 2]


def test_primary_has_no_lag(tokens: Pair, tmp_path: Path) -> None:
    tokens.on_primary("UPDATE pace SET seconds = 0")
    source = read(tokens, tmp_path, url=tokens.primary.url(), max_lag="0s").source
    assert source.reader.lag() is None
    assert [len(frame) for frame in source.snapshot(WINDOW)] == [TOKENS]


def test_standby_that_lost_its_primary_does_not_pass_for_up_to_date(tokens: Pair, tmp_path: Path) -> None:
    """Last, since it stops the primary: what it received is replayed, and nothing more comes."""
    tokens.on_primary("UPDATE pace SET seconds = 0")
    tokens.catch_up()
    source = read(tokens, tmp_path, max_lag="1s").source
    tokens.primary.stop()
    try:
        wait_until(lambda: (source.reader.lag() or timedelta()) > timedelta(seconds=1), seconds=PATIENCE_S)
        with pytest.raises(SourceError, match=r"^Replica lag over the limit: "):
            list(source.snapshot(WINDOW))
    finally:
        tokens.primary.start()
