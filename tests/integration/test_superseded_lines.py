"""Which lines a later notice has superseded: the answer, and that finding it costs the same whatever statistics say."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, LiteralString

import psycopg
import pytest
from support.ledger import ledger_at

from token_pipelines.ledger import told
from token_pipelines.ledger.ledger import Ledger

NOTICES: Final = 5000
BATCH: Final = 500
EXPIRY: Final = datetime(2026, 11, 27, tzinfo=UTC)

FILL: Final[LiteralString] = """
INSERT INTO token_pipelines.notices
    (notice_id, day, mode, tier, recipient_id, state, message_id, planned_by, planned_at, sent_at)
SELECT md5(%(name)s || n)::uuid, '2026-11-20', 'live', 'week', n::text, %(state)s, '<' || %(name)s || n || '@x>', 'run',
    now(), CASE WHEN %(state)s = 'sent' THEN now() END
FROM generate_series(1, %(count)s) AS n;
"""
FILL_LINES: Final[LiteralString] = """
INSERT INTO token_pipelines.notice_tokens (notice_id, token_id, recipient_id, expires_at, threshold, mode, tier)
SELECT md5(%(name)s || n)::uuid, 'token ' || n, n::text, %(expiry)s, %(threshold)s, 'live', 'week'
FROM generate_series(1, %(count)s) AS n;
"""


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = ledger_at(database_url)
    ledger.migrate()
    yield ledger
    ledger.close()


@pytest.fixture
def connection(ledger: Ledger, database_url: str) -> Iterator[psycopg.Connection]:
    """A connection beside the ledger, whose tables are there."""
    assert ledger.schema == "token_pipelines"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET search_path = token_pipelines")
        yield connection


def fill(connection: psycopg.Connection, name: str, *, state: str, days_before: int, count: int) -> None:
    """Notices 1 to ``count``, about one token each."""
    values = {"name": name, "state": state, "count": count, "expiry": EXPIRY}
    connection.execute(FILL, values)
    connection.execute(FILL_LINES, values | {"threshold": EXPIRY - timedelta(days=days_before)})


def ids(connection: psycopg.Connection, name: str, count: int) -> list[str]:
    found = connection.execute(
        "SELECT md5(%s || n)::uuid FROM generate_series(1, %s) AS n ORDER BY n", [name, count]
    ).fetchall()
    return [str(row[0]) for row in found]


@pytest.mark.parametrize(
    ("state", "days_before", "superseded"),
    [
        ("sent", 1, True),
        ("unknown", 1, True),
        ("planned", 1, False),
        ("failed", 1, False),
        ("withdrawn", 1, False),
        ("sent", 30, False),
    ],
)
def test_line_is_superseded_by_what_was_told_of_a_later_threshold(
    ledger: Ledger, connection: psycopg.Connection, state: str, days_before: int, *, superseded: bool
) -> None:
    fill(connection, "mine", state="planned", days_before=7, count=2)
    fill(connection, "other", state=state, days_before=days_before, count=1)
    mine = ids(connection, "mine", 2)

    assert ledger.told.superseded_lines(mine) == ({(mine[0], "token 1")} if superseded else set())


def test_line_that_was_released_supersedes_nothing(ledger: Ledger, connection: psycopg.Connection) -> None:
    fill(connection, "mine", state="planned", days_before=7, count=1)
    fill(connection, "other", state="sent", days_before=1, count=1)
    connection.execute("UPDATE notice_tokens SET released = true WHERE notice_id = %s", ids(connection, "other", 1))

    assert ledger.told.superseded_lines(ids(connection, "mine", 1)) == set()


def blocks_read(connection: psycopg.Connection, batch: list[str]) -> int:
    """How many blocks the statement touches for a batch, as Postgres counts them."""
    statement = str(told._SUPERSEDED_LINES).replace(":ids", "%(ids)s::uuid[]")  # noqa: SLF001 -- its plan is the test
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
    row = connection.execute(explain.encode(), {"ids": batch}).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def test_superseded_lines_cost_the_same_whatever_the_statistics_say(connection: psycopg.Connection) -> None:
    """Right after planning they say that everything is planned, and they stay so while the day is sent."""
    fill(connection, "mine", state="planned", days_before=7, count=NOTICES)
    connection.execute("VACUUM ANALYZE notices, notice_tokens")
    connection.execute(
        "UPDATE notices SET state = 'sent', sent_at = now() WHERE recipient_id::int > %s", [NOTICES // 2]
    )
    batch = ids(connection, "mine", BATCH)

    stale = blocks_read(connection, batch)
    connection.execute("VACUUM ANALYZE notices, notice_tokens")
    fresh = blocks_read(connection, batch)

    assert stale < 20 * BATCH
    assert stale == pytest.approx(fresh, rel=0.2)
