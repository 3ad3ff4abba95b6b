"""The group commit of the sending loop: one statement, what it does to each notice, and what its failures say."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import pytest
from sqlalchemy import create_engine, text
from support.ledger import ledger_at

from token_pipelines.errors import LedgerError
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.ledger.sending import Sending
from token_pipelines.ledger.settlement import Record, Settlement
from token_pipelines.model import Mode, Outcome, Stage, State
from token_pipelines.token_facts import INSTANT

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
HASH = bytes(range(32))

SENT = Outcome(state=State.SENT, stage=Stage.DOT, code=250, enhanced="2.0.0", reply="2.0.0 Ok", queue_id="Q1")
REFUSED = Outcome(state=State.FAILED, stage=Stage.RCPT, code=550, enhanced="5.1.1", reply="5.1.1 no such user")
PUT_OFF = Outcome(state=State.DEFERRED, stage=Stage.RCPT, code=450, enhanced="4.2.0", reply="4.2.0 later")
LOST_EARLY = Outcome(state=State.DEFERRED, stage=Stage.DATA, reply="connection lost")
NO_ANSWER = Outcome(state=State.UNKNOWN, stage=Stage.DOT, reply="connection lost after the final dot")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    opened = ledger_at(database_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def sender(ledger: Ledger) -> Iterator[Sending]:
    with ledger.sending(run_id="run-1", mode=Mode.LIVE, has_ended=lambda _: False) as sending:
        yield sending


def claimed(ledger: Ledger, sender: Sending, count: int) -> list[str]:
    """So many notices, planned and claimed."""
    expiry = NOW + timedelta(hours=12)
    numbers = [str(number) for number in range(count)]
    lines = pd.DataFrame({"token_id": numbers, "recipient_id": numbers}, dtype="str").assign(
        tier=pd.Categorical(["day"] * count, categories=["day"]),
        expires_at=pd.Series([expiry] * count, dtype=INSTANT),
        threshold=pd.Series([expiry - timedelta(days=1)] * count, dtype=INSTANT),
    )
    with ledger.planning(run_id="planner", mode=Mode.LIVE) as planning:
        draft = planning.draft(lines, tiers=["day"], since=NOW - timedelta(days=40))
        ids = planning.carry_out(draft, day=NOW.date(), at=NOW, message_domain="example.org")["notice_id"].tolist()
    assert [notice.notice_id for notice in sender.claim(ids, resend=True, max_attempts=3)] == ids
    return ids


def record(notice_id: str, outcome: Outcome, at: datetime = NOW) -> Record:
    return Record(notice_id=notice_id, outcome=outcome, at=at, address_hash=HASH)


def rows(ledger: Ledger, query: str, **values: object) -> list[Any]:
    with ledger.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), values)]


def of(ledger: Ledger, notice_id: str) -> tuple[Any, ...]:
    query = "SELECT state, attempts, first_tried_at FROM token_pipelines.notices WHERE notice_id = CAST(:id AS uuid)"
    return tuple(rows(ledger, query, id=notice_id)[0])


def attempts(ledger: Ledger) -> int:
    return len(rows(ledger, "SELECT 1 FROM token_pipelines.attempts"))


def test_one_statement_records_and_marks_many(ledger: Ledger, sender: Sending) -> None:
    first, second, third, fourth, fifth = claimed(ledger, sender, 5)
    assert sender.settle([], {first: NOW, second: NOW}) == {first, second}
    assert sender.settle([record(first, SENT), record(second, NO_ANSWER), record(third, REFUSED)], {fourth: LATER}) == {
        fourth
    }
    assert [of(ledger, one) for one in (first, second, third, fourth, fifth)] == [
        ("sent", 1, NOW),
        ("unknown", 1, NOW),
        ("deferred", 1, None),
        ("sending", 1, LATER),
        ("claimed", 0, None),
    ]
    assert attempts(ledger) == 3


def test_nothing_to_settle_changes_nothing(ledger: Ledger, sender: Sending) -> None:
    (notice,) = claimed(ledger, sender, 1)
    assert sender.settle([], {}) == set()
    assert of(ledger, notice) == ("claimed", 0, None)


def test_notice_in_both_lists_is_refused(ledger: Ledger, sender: Sending) -> None:
    (notice,) = claimed(ledger, sender, 1)
    with pytest.raises(ValueError, match="recorded and marked"):
        sender.settle([record(notice, SENT)], {notice: NOW})
    assert of(ledger, notice) == ("claimed", 0, None)


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize(
    ("outcome", "counts"),
    [(REFUSED, True), (PUT_OFF, False), (LOST_EARLY, False)],
    ids=["refused", "put off", "lost early"],
)
def test_what_counts_as_an_attempt(
    ledger: Ledger, sender: Sending, outcome: Outcome, *, marked: bool, counts: bool
) -> None:
    """A refusal for good, whether the notice was marked before it or not; "not now" never."""
    (notice,) = claimed(ledger, sender, 1)
    if marked:
        sender.settle([], {notice: NOW})
    sender.settle([record(notice, outcome)], {})
    kept = State.DEFERRED if outcome is REFUSED else outcome.state  # until it is believed
    assert of(ledger, notice)[:2] == (kept, int(counts))


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "plain",
        'with "quotes" and \\backslashes\\',
        "{a,b}",
        "NULL",
        "null",
        "a,b",
        "tab\tand\u00a0blank",
        "né 💩",
        "'",
    ],
)
def test_reply_is_kept_as_it_is(ledger: Ledger, sender: Sending, reply: str) -> None:
    (notice,) = claimed(ledger, sender, 1)
    outcome = Outcome(state=State.SENT, stage=Stage.DOT, code=250, reply=reply, queue_id=f"q{reply}")
    sender.settle([record(notice, outcome)], {})
    query = "SELECT reply, queue_id, enhanced, address_hash, at, run_id FROM token_pipelines.attempts"
    assert rows(ledger, query) == [(reply, f"q{reply}", None, HASH, NOW, "run-1")]


def test_commits_wait_for_the_disk(ledger: Ledger, sender: Sending) -> None:
    """Whatever `delivery.on_unknown` says: not even a crash of the server forgets a mark."""
    with ledger.engine.begin() as connection:
        connection.execute(text("CREATE TABLE token_pipelines.noted (setting text)"))
        connection.execute(
            text(
                "CREATE FUNCTION token_pipelines.note() RETURNS trigger LANGUAGE plpgsql AS $$"
                " BEGIN INSERT INTO token_pipelines.noted"
                " VALUES (current_setting('synchronous_commit') || current_setting('plan_cache_mode'));"
                " RETURN NEW; END $$"
            )
        )
        note = "CREATE TRIGGER note AFTER UPDATE ON token_pipelines.notices FOR EACH ROW"
        connection.execute(text(f"{note} EXECUTE FUNCTION token_pipelines.note()"))
    (notice,) = claimed(ledger, sender, 1)
    sender.settle([], {notice: NOW})
    sender.settle([record(notice, SENT)], {})
    assert rows(ledger, "SELECT DISTINCT setting FROM token_pipelines.noted WHERE setting LIKE '%force%'") == [
        ("onforce_generic_plan",)
    ]


def cut(database_url: str) -> None:
    """End everybody else's connections."""
    with psycopg.connect(database_url) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_settle_on_a_lost_connection_fails_and_settling_again_records_once(
    ledger: Ledger, sender: Sending, database_url: str
) -> None:
    first, second = claimed(ledger, sender, 2)
    sender.settle([], {first: NOW, second: NOW})
    sender.settle([record(first, SENT)], {})
    cut(database_url)
    with pytest.raises(LedgerError, match=r"was lost while we spoke to it; run again; nothing is sent twice\.$"):
        sender.settle([record(second, SENT)], {})
    sender.settle_again([record(first, SENT), record(second, SENT)])
    assert [of(ledger, one)[:2] for one in (first, second)] == [("sent", 1), ("sent", 1)]
    assert attempts(ledger) == 2, "what was committed before is not recorded again"


def test_mark_of_what_was_never_said_is_no_doubt(
    ledger: Ledger, sender: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit may have gone through although nobody heard of it."""
    said, unsaid, idle = claimed(ledger, sender, 3)
    sender.settle([], {said: NOW})
    settle = Settlement.settle

    def cut_off(self: Settlement, records: list[Record], marks: dict[str, datetime]) -> set[str]:
        settle(self, records, marks)
        msg = "cut off before the answer"
        raise LedgerError(msg)

    monkeypatch.setattr(Settlement, "settle", cut_off)
    with pytest.raises(LedgerError):
        sender.settle([], {unsaid: NOW})
    assert of(ledger, unsaid)[:2] == ("sending", 1)
    sender.give_back()
    assert [of(ledger, one)[:2] for one in (said, unsaid, idle)] == [("unknown", 1), ("planned", 0), ("planned", 0)]


def test_settle_without_a_server_says_that_the_database_cannot_be_reached(tmp_path: Path) -> None:
    """As after a crash of Postgres, when a new connection is needed."""
    settlement = Settlement(create_engine(f"postgresql+psycopg://owner@/ledger?host={tmp_path}"), "run-1")
    with pytest.raises(LedgerError) as raised:
        settlement.settle([], {})
    assert str(raised.value) == (
        f"The database of ledger.url (owner@{tmp_path}/ledger) cannot be reached; check that it runs and that this "
        "machine may connect."
    )


def test_claim_after_the_database_went_away_fails_once(ledger: Ledger, sender: Sending, database_url: str) -> None:
    (notice,) = claimed(ledger, sender, 1)
    cut(database_url)
    with pytest.raises(LedgerError, match="was lost while we spoke to it"):
        sender.claim([notice], resend=True, max_attempts=3)
    assert sender.claim([notice], resend=True, max_attempts=3) == [], "it is claimed already"


def test_changed_notices_stay_in_their_pages(ledger: Ledger) -> None:
    options = rows(ledger, "SELECT reloptions FROM pg_class WHERE oid = 'token_pipelines.notices'::regclass")
    assert options == [(["fillfactor=50"],)]
