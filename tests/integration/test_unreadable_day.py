"""A whole day: one row that cannot be read, or is costly to write, keeps nobody else from being told."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest
from support.pipeline import DAY, NOW, MakePipeline, PipelineRunner, Registry
from support.smtpd import Smtpd

from token_pipelines.channel import Channel
from token_pipelines.delivery import outbox
from token_pipelines.model import UnreadableRow

MARKS = "a" + "\u0301\u0323" * 2048

QUERY = """
SELECT id AS token_id, person AS recipient_id, made AS created_at, ends AS expires_at, name AS token_name,
    person AS recipient_name, email, used AS last_used_at, scopes
FROM tokens WHERE ends >= :expires_after AND ends < :expires_before
"""


def sqlite_day(folder: Path, database_url: str, port: int, **odd: str) -> PipelineRunner:
    """Forty people with a token each; ``odd`` are columns of number 17, as SQL."""
    file = folder / "tokens.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE tokens (id, person, made, ends, name, email, used, scopes)")
        for number in range(40):
            row = {
                "id": f"'t{number}'",
                "person": f"'p{number}'",
                "made": f"'{NOW - 90 * DAY:%Y-%m-%dT%H:%M:%SZ}'",
                "ends": f"'{NOW + 3 * DAY:%Y-%m-%dT%H:%M:%SZ}'",
                "name": "'ci'",
                "email": f"'p{number}@example.org'",
                "used": "NULL",
                "scopes": "'read'",
            } | (odd if number == 17 else {})
            connection.execute(f"INSERT INTO tokens VALUES ({', '.join(row.values())})")  # noqa: S608 -- a test's own
    (folder / "tokens.sql").write_text(QUERY, encoding="utf-8")
    source = {"url": f"sqlite:///{file}", "query": "tokens.sql"}
    return PipelineRunner(folder, database_url, port, ledger_url=database_url, source=source)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("name", "CAST(x'4afc7267656e' AS text)"),
        ("name", "x'4afc'"),
        ("name", "replace(hex(zeroblob(500000)), '00', 'ab')"),
        ("scopes", "'" + "[" * 1100 + "'"),
        ("scopes", "x'5b5bfc'"),
        ("used", "'0001-01-01 00:00:00Z'"),
        ("used", "'0001-01-01T00:00:00+05:00'"),
    ],
)
def test_odd_value_that_is_only_shown_leaves_nobody_out(
    tmp_path: Path, database_url: str, relay: Smtpd, column: str, value: str
) -> None:
    day = sqlite_day(tmp_path, database_url, relay.port, **{column: value}).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 40}, [])


@pytest.mark.parametrize(
    ("column", "value", "named"),
    [
        ("id", "CAST(x'4afc' AS text)", "token_id J\\xfc: token_id"),
        ("id", "x'74'", "token_id \\xfft: token_id"),
        ("person", "'p17' || char(0)", "token_id t17: recipient_id"),
        ("person", f"'{'p' * 1500}'", "token_id t17: recipient_id"),
        ("used", "CAST(x'4afc' AS text)", "token_id t17: last_used_at"),
    ],
)
def test_row_that_cannot_be_read_is_counted_and_named_and_everyone_else_is_told(
    tmp_path: Path,
    database_url: str,
    relay: Smtpd,
    caplog: pytest.LogCaptureFixture,
    column: str,
    value: str,
    named: str,
) -> None:
    day = sqlite_day(tmp_path, database_url, relay.port, **{column: value}).run(NOW)
    assert (day.numbers, day.troubles) == ({"sent": 39}, [])
    assert day.counts.reasons == {"unreadable": 1}
    assert [str(row) for row in day.counts.unreadable] == [named]
    [said] = [record.getMessage() for record in caplog.records if "Not readable" in record.getMessage()]
    assert named in said


def test_row_that_cannot_be_read_just_before_sending_is_skipped_and_named(
    tmp_path: Path, database_url: str, relay: Smtpd, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {"email": "CAST(x'fc' AS text) || '@example.org'"}
    day = sqlite_day(tmp_path, database_url, relay.port, **odd).run(NOW)
    assert (day.numbers, day.skipped, day.troubles) == ({"sent": 39}, {"unreadable": 1}, [])
    assert [*day.tiers["week"].unreadable] == [UnreadableRow("t17", "email")]
    assert "token_id t17: email" in caplog.text


def test_names_that_are_costly_to_write_hold_nobody_up(
    registry: Registry, make_pipeline: MakePipeline, relay: Smtpd
) -> None:
    for number in range(5):
        user = registry.user(f"u{number}", email=f"u{number}@example.org", name=MARKS)
        for token in range(50):
            registry.token(user, expires_at=NOW + 3 * DAY, name=f"{MARKS}{token}")
    started = monotonic()
    assert make_pipeline(relay).run(NOW).numbers == {"sent": 5}
    assert monotonic() - started < 60


def test_tier_delivers_of_every_batch_however_slowly_emails_are_written(
    registry: Registry, make_pipeline: MakePipeline, relay: Smtpd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each email takes longer to write than what was read of it stays fresh; no email is old before it is begun."""
    for number in range(6):
        registry.token(registry.user(f"u{number}", email=f"u{number}@example.org"), expires_at=NOW + 3 * DAY)
    pipeline = make_pipeline(relay)
    write = Channel.write
    writings = []

    def slow(*args: object, **kwargs: object) -> object:
        writings.append(1)
        assert len(writings) < 50, "written again for ever"
        pipeline.pass_time(DAY / 1000)
        return write(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Channel, "write", slow)
    assert pipeline.run(NOW).numbers == {"sent": 6}


def test_stop_is_seen_while_emails_are_written(
    registry: Registry, make_pipeline: MakePipeline, relay: Smtpd, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        registry.token(registry.user(f"u{number}", email=f"u{number}@example.org"), expires_at=NOW + 3 * DAY)
    pipeline = make_pipeline(relay)
    written: list[int] = []
    fill = outbox.Outbox.fill

    def told_to_stop(self: outbox.Outbox, is_stopping: Callable[[], bool]) -> None:
        assert not is_stopping()
        before = len(self)
        fill(self, lambda: True)
        written.append(len(self) - before)

    monkeypatch.setattr(outbox.Outbox, "fill", told_to_stop)
    assert pipeline.run(NOW).numbers == {"sent": 40}
    assert max(written) == 1, "no second email is written once the run is to stop"
