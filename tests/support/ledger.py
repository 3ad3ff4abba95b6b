"""A ledger by itself: what is due, what became of it, what its tables hold."""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString

import pandas as pd
from sqlalchemy import text

from token_pipelines.config import LEDGER_URL
from token_pipelines.database import PSYCOPG, DatabaseUrl
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.ledger.sending import Sending
from token_pipelines.ledger.settlement import Record
from token_pipelines.model import Mode, Notice, Outcome, Stage, State
from token_pipelines.policy import HISTORY_COLUMNS, Window
from token_pipelines.token_facts import INSTANT

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
TODAY = NOW.date()
DAY = timedelta(days=1)
SINCE = NOW - timedelta(days=40)
TIERS = ("expired", "day", "week", "month")  # most urgent first
LEADS = {"expired": timedelta(), "day": DAY, "week": 7 * DAY, "month": 30 * DAY}
EXPIRY = NOW + 12 * timedelta(hours=1) + timedelta(microseconds=123_457)
ALL_TIME = Window(expires_after=NOW - 400 * DAY, expires_before=NOW + 400 * DAY)
HASH = b"\x01" * 32

SENT = Outcome(state=State.SENT, stage=Stage.DOT, code=250, enhanced="2.0.0", reply="2.0.0 Ok", queue_id="Q1")
REFUSED = Outcome(state=State.FAILED, stage=Stage.RCPT, code=550, enhanced="5.1.1", reply="5.1.1 no such user")
PUT_OFF = Outcome(state=State.DEFERRED, stage=Stage.RCPT, code=450, enhanced="4.2.0", reply="4.2.0 later")
NO_ANSWER = Outcome(state=State.UNKNOWN, stage=Stage.DOT, reply="connection lost after the final dot")

OpenSending = Callable[..., AbstractContextManager[Sending]]


def ledger_at(url: str, **options: Any) -> Ledger:  # noqa: ANN401 -- what Ledger takes
    """The ledger in the database at this URL."""
    return Ledger(DatabaseUrl.read_postgres(url, LEDGER_URL, PSYCOPG), **options)


def due(*lines: tuple[str, str, str], expires_at: datetime = EXPIRY) -> pd.DataFrame:
    """Due tokens: token, recipient and tier of each."""
    frame = pd.DataFrame(lines, columns=["token_id", "recipient_id", "tier"], dtype="str")
    return frame.assign(
        tier=pd.Categorical(frame["tier"], categories=list(TIERS)),
        expires_at=pd.Series([expires_at] * len(lines), dtype=INSTANT),
        threshold=pd.Series([expires_at - LEADS[tier] for _, _, tier in lines], dtype=INSTANT),
    )


def plan(
    ledger: Ledger,
    lines: pd.DataFrame,
    *,
    tiers: Collection[str] = TIERS,
    day: date = TODAY,
    mode: Mode = Mode.LIVE,
    run_id: str = "planner",
) -> dict[str, str]:
    """Plan, and give the notice of each recipient."""
    with ledger.planning(run_id=run_id, mode=mode) as planning:
        draft = planning.draft(lines, tiers=tiers, since=SINCE)
        planned = planning.carry_out(draft, day=day, at=NOW, message_domain="example.org")
    return dict(zip(planned["recipient_id"], planned["notice_id"], strict=True))


def told(ledger: Ledger, mode: Mode = Mode.LIVE) -> list[tuple[str, str, datetime | None, datetime | None, bool]]:
    frame = ledger.told.history(ALL_TIME, mode)
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == HISTORY_COLUMNS
    columns = (
        frame[name].astype("object").tolist() for name in ("token_id", "recipient_id", "told", "refused", "sent")
    )
    rows = zip(*columns, strict=True)
    return sorted((a, b, _instant(c), _instant(d), e) for a, b, c, d, e in rows)


def _instant(value: Any) -> datetime | None:  # noqa: ANN401 -- a cell
    return None if pd.isna(value) else value.to_pydatetime()


def states(ledger: Ledger) -> dict[str, tuple[str, str | None, str | None, str | None]]:
    """Of each notice: its state, its reason, who claims it, and from which state."""
    return {
        str(row[0]): tuple(row[1:])
        for row in query(
            ledger, "SELECT notice_id, state, reason, claimed_by, claimed_from FROM token_pipelines.notices"
        )
    }


def state(ledger: Ledger, notice_id: str) -> str:
    return states(ledger)[notice_id][0]


def released(ledger: Ledger) -> dict[tuple[str, str], tuple[bool, str | None]]:
    lines = query(ledger, "SELECT notice_id, token_id, released, reason FROM token_pipelines.notice_tokens")
    return {(str(row[0]), row[1]): (row[2], row[3]) for row in lines}


def query(ledger: Ledger, statement: LiteralString, **parameters: object) -> list[Any]:
    with ledger.engine.begin() as connection:
        result = connection.execute(text(statement), parameters)
        return list(result.all()) if result.returns_rows else []


def claim(sender: Sending, ids: Collection[str], *, resend: bool = True, max_attempts: int = 3) -> dict[str, Notice]:
    return {notice.notice_id: notice for notice in sender.claim(ids, resend=resend, max_attempts=max_attempts)}


def record(notice_id: str, outcome: Outcome, *, at: datetime = NOW) -> Record:
    return Record(notice_id=notice_id, outcome=outcome, at=at, address_hash=HASH)


def mark(sender: Sending, notice_id: str, at: datetime, *, after: Record | None = None) -> bool:
    """Mark one notice, in one commit with an outcome; whether it was still this run's."""
    return sender.settle([] if after is None else [after], {notice_id: at}) == {notice_id}


def deliver(sender: Sending, notice_id: str, outcome: Outcome, *, at: datetime = NOW) -> None:
    """Claim, mark and record."""
    assert list(claim(sender, [notice_id])) == [notice_id]
    assert mark(sender, notice_id, at)
    sender.settle([record(notice_id, outcome, at=at)], {})


def waiting(sender: Sending, tier: str, *, resend: bool = True, max_attempts: int = 3) -> list[str]:
    return sender.waiting(tier, since=SINCE, resend=resend, max_attempts=max_attempts)


def let_lapse(ledger: Ledger, run_id: str) -> None:
    """Make it look as if nobody had heard of the run for three minutes."""
    query(
        ledger,
        "UPDATE token_pipelines.runs SET heartbeat_at = heartbeat_at - interval '3 minutes' WHERE run_id = :run_id",
        run_id=run_id,
    )


def many(ledger: Ledger, count: int) -> list[str]:
    return list(plan(ledger, due(*((str(number), str(number), "day") for number in range(count)))).values())
