"""The ledger against a real Postgres: what is promised, who may send it, and what the database itself refuses."""

import hmac
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from typing import Any, LiteralString

import pandas as pd
import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from token_pipelines.errors import ConfigError, LedgerError
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.ledger.sending import Sending
from token_pipelines.ledger.settlement import Record
from token_pipelines.ledger.tables import metadata
from token_pipelines.model import DueToken, Mode, Notice, Outcome, Reason, Stage, State
from token_pipelines.policy import HISTORY_COLUMNS, INSTANT, Window

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


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """An empty ledger, up to date."""
    opened = Ledger(database_url)
    opened.migrate()
    yield opened
    opened.close()


@pytest.fixture
def sending(ledger: Ledger) -> OpenSending:
    """Open the ledger as a sender."""

    def open_sending(
        run_id: str = "run-1", *, mode: Mode = Mode.LIVE, ended: Collection[str] = ()
    ) -> AbstractContextManager[Sending]:
        return ledger.sending(run_id=run_id, mode=mode, has_ended=lambda other: other in ended)

    return open_sending


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
    frame = ledger.told(ALL_TIME, mode)
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


def record(notice_id: str, outcome: Outcome) -> Record:
    return Record(notice_id=notice_id, outcome=outcome, at=NOW, address_hash=HASH)


def mark(sender: Sending, notice_id: str, at: datetime, *, after: Record | None = None) -> bool:
    """Mark one notice, in one commit with an outcome; whether it was still this run's."""
    return sender.settle([] if after is None else [after], {notice_id: at}) == {notice_id}


def deliver(sender: Sending, notice_id: str, outcome: Outcome) -> None:
    """Claim, mark and record."""
    assert list(claim(sender, [notice_id])) == [notice_id]
    assert mark(sender, notice_id, NOW)
    sender.settle([record(notice_id, outcome)], {})


def waiting(sender: Sending, tier: str, *, resend: bool = True, max_attempts: int = 3) -> list[str]:
    return sender.waiting(tier, since=SINCE, resend=resend, max_attempts=max_attempts)


def let_lapse(ledger: Ledger, run_id: str) -> None:
    """Make it look as if nobody had heard of the run for three minutes."""
    query(
        ledger,
        "UPDATE token_pipelines.runs SET heartbeat_at = heartbeat_at - interval '3 minutes' WHERE run_id = :run_id",
        run_id=run_id,
    )


# The schema


def test_migrations_make_what_the_tables_say(ledger: Ledger) -> None:
    with ledger.engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def test_migrations_make_every_constraint_of_the_tables(ledger: Ledger) -> None:
    """What autogenerate does not compare: checks, foreign keys' actions, identities, the index's condition."""
    made = _constraints(ledger)
    query(ledger, "DROP SCHEMA token_pipelines CASCADE")
    query(ledger, "CREATE SCHEMA token_pipelines")
    metadata.create_all(ledger.engine)
    assert made == _constraints(ledger)
    assert len(made) > 20


def _constraints(ledger: Ledger) -> list[str]:
    constraints = query(
        ledger,
        "SELECT conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'token_pipelines'::regnamespace AND conrelid::regclass::text NOT LIKE '%alembic%'",
    )
    indexes = query(
        ledger,
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'token_pipelines' AND tablename <> 'alembic_version'",
    )
    columns = query(
        ledger,
        "SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' '"
        " || coalesce(column_default, '') || ' ' || is_identity FROM information_schema.columns"
        " WHERE table_schema = 'token_pipelines' AND table_name <> 'alembic_version'",
    )
    return sorted(str(row[0]) for row in [*constraints, *indexes, *columns])


def test_migrate_again_changes_nothing(ledger: Ledger) -> None:
    made = _constraints(ledger)
    plan(ledger, due(("1", "7", "day")))
    ledger.migrate()
    assert _constraints(ledger) == made
    assert len(states(ledger)) == 1


def test_two_processes_migrate_at_once(database_url: str) -> None:
    ledgers = [Ledger(database_url) for _ in range(4)]
    start = threading.Barrier(len(ledgers))

    def migrate(ledger: Ledger) -> None:
        start.wait()
        ledger.migrate()

    with ThreadPoolExecutor() as pool:
        list(pool.map(migrate, ledgers))
    assert query(ledgers[0], "SELECT count(*) FROM token_pipelines.alembic_version") == [(1,)]
    for ledger in ledgers:
        ledger.close()


def test_schema_of_a_newer_version_is_refused_and_left_alone(ledger: Ledger) -> None:
    query(ledger, "UPDATE token_pipelines.alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerError, match="revision 9999, newer than this version knows; upgrade token-pipelines"):
        ledger.migrate()
    assert query(ledger, "SELECT version_num FROM token_pipelines.alembic_version") == [("9999",)]


def test_told_of_a_ledger_without_tables_is_nothing(database_url: str) -> None:
    """A first dry run reads the ledger before anything has made it."""
    ledger = Ledger(database_url)
    assert told(ledger) == []
    assert ledger.told_before(Mode.LIVE) is None
    assert query(ledger, "SELECT to_regnamespace('token_pipelines') IS NULL") == [(True,)]
    ledger.close()


def test_ledger_is_postgres_only() -> None:
    with pytest.raises(ConfigError, match=r"ledger.url must be a Postgres database \(postgresql://…\), not sqlite."):
        Ledger("sqlite:///x.db")


# Planning


def test_plan_makes_one_notice_a_recipient_at_the_most_urgent_tier(ledger: Ledger) -> None:
    lines = due(("1", "7", "week"), ("2", "7", "day"), ("3", "8", "month"), ("4", "7", "month"))
    notices = plan(ledger, lines)
    assert set(notices) == {"7", "8"}
    entries = {entry["recipient_id"]: entry for entry in ledger.history()}
    assert {who: (entry["tier"], entry["state"]) for who, entry in entries.items()} == {
        "7": ("day", "planned"),
        "8": ("month", "planned"),
    }
    tokens = {who: [(t["token_id"], t["tier"]) for t in entry["tokens"]] for who, entry in entries.items()}  # type: ignore[attr-defined]
    assert tokens == {"7": [("1", "week"), ("2", "day"), ("4", "month")], "8": [("3", "month")]}


def test_plan_again_keeps_what_waits(ledger: Ledger) -> None:
    lines = due(("1", "7", "week"), ("2", "7", "day"), ("3", "8", "month"))
    first = plan(ledger, lines)
    assert plan(ledger, lines, run_id="another", day=TODAY + DAY) == first
    assert plan(ledger, lines.iloc[::-1].reset_index(drop=True)) == first
    assert {state for state, *_ in states(ledger).values()} == {"planned"}


def test_plan_again_keeps_what_was_put_off(ledger: Ledger, sending: OpenSending) -> None:
    first = plan(ledger, due(("1", "7", "week")))
    with sending() as sender:
        deliver(sender, first["7"], PUT_OFF)
    assert plan(ledger, due(("1", "7", "week"))) == first
    assert states(ledger)[first["7"]] == ("deferred", None, None, None)


@pytest.mark.parametrize("outcome", [None, PUT_OFF], ids=["planned", "deferred"])
def test_plan_at_a_more_urgent_threshold_withdraws_and_replaces(
    ledger: Ledger, sending: OpenSending, outcome: Outcome | None
) -> None:
    old = plan(ledger, due(("1", "7", "week"), ("2", "8", "week")))
    if outcome is not None:
        with sending() as sender:
            deliver(sender, old["7"], outcome)
    new = plan(ledger, due(("1", "7", "day"), ("2", "8", "week")), day=TODAY + DAY)
    assert new["8"] == old["8"]
    assert new["7"] != old["7"]
    assert {notice: row[:2] for notice, row in states(ledger).items()} == {
        old["7"]: ("withdrawn", "superseded"),
        new["7"]: ("planned", None),
        old["8"]: ("planned", None),
    }
    with sending() as sender:
        assert waiting(sender, "week") == [old["8"]]
        assert waiting(sender, "day") == [new["7"]]


def test_plan_with_another_token_due_replaces_the_waiting_notice(ledger: Ledger) -> None:
    old = plan(ledger, due(("1", "7", "day")))
    new = plan(ledger, due(("1", "7", "day"), ("2", "7", "month")))
    assert state(ledger, old["7"]) == "withdrawn"
    assert [line for line, (free, _) in released(ledger).items() if not free] == [(new["7"], "1"), (new["7"], "2")]


def test_plan_with_a_token_no_longer_due_replaces_the_waiting_notice(ledger: Ledger) -> None:
    old = plan(ledger, due(("1", "7", "day"), ("2", "7", "day")))
    new = plan(ledger, due(("1", "7", "day")))
    assert state(ledger, old["7"]) == "withdrawn"
    assert [line for line, (free, _) in released(ledger).items() if not free] == [(new["7"], "1")]


@pytest.mark.parametrize("outcome", [SENT, NO_ANSWER, None], ids=["sent", "unknown", "claimed"])
def test_plan_counts_what_was_or_may_have_been_sent_as_told(
    ledger: Ledger, sending: OpenSending, outcome: Outcome | None
) -> None:
    notices = plan(ledger, due(("1", "7", "week")))
    with sending() as sender:
        if outcome is None:
            claim(sender, [notices["7"]])
        else:
            deliver(sender, notices["7"], outcome)
        assert told(ledger) == [("1", "7", EXPIRY - 7 * DAY, None, outcome is SENT)]
        assert plan(ledger, due(("1", "7", "week"))) == {}, "the unique key refuses a second promise"
        assert list(states(ledger)) == [notices["7"]], "and nothing empty is left behind"


def test_plan_keeps_the_lines_that_the_key_lets_in(ledger: Ledger, sending: OpenSending) -> None:
    first = plan(ledger, due(("1", "7", "week")))
    with sending() as sender:
        deliver(sender, first["7"], SENT)
    second = plan(ledger, due(("1", "7", "week"), ("2", "7", "week")))
    assert [line for line in released(ledger) if line[0] == second["7"]] == [(second["7"], "2")]


def test_plan_for_a_new_expiry_is_a_new_promise(ledger: Ledger, sending: OpenSending) -> None:
    first = plan(ledger, due(("1", "7", "week")))
    with sending() as sender:
        deliver(sender, first["7"], SENT)
    assert plan(ledger, due(("1", "7", "week"), expires_at=EXPIRY + timedelta(microseconds=1)))


def test_instants_survive_to_the_microsecond(ledger: Ledger) -> None:
    """Rounding would make a new key each time."""
    whole = datetime(2026, 12, 1, tzinfo=UTC)
    plan(ledger, pd.concat([due(("1", "7", "day")), due(("2", "8", "day"), expires_at=whole)], ignore_index=True))
    lines = query(ledger, "SELECT expires_at, threshold FROM token_pipelines.notice_tokens ORDER BY expires_at")
    assert [tuple(line) for line in lines] == [(EXPIRY, EXPIRY - DAY), (whole, whole - DAY)]


def test_ids_with_every_odd_character_survive(ledger: Ledger) -> None:
    odd = ["tab\there", "back\\slash", "new\nline", "\\N", "quote'\"", "%s %(x)s", ":bind", "ünï", "a,b", "nan", "None"]
    plan(ledger, due(*((token, f"r{token}", "day") for token in odd)))
    lines = query(ledger, "SELECT token_id, recipient_id FROM token_pipelines.notice_tokens")
    assert {tuple(line) for line in lines} == {(token, f"r{token}") for token in odd}


def test_plan_of_a_subset_leaves_the_other_tiers_alone(ledger: Ledger) -> None:
    """A recipient whose notice belongs to another tier is not this subset's business, whatever else is due."""
    lines = due(("1", "7", "week"), ("2", "7", "day"), ("3", "8", "week"))
    assert set(plan(ledger, lines, tiers=["week"])) == {"8"}
    both = plan(ledger, lines)
    assert set(both) == {"7", "8"}
    assert plan(ledger, lines, tiers=["week"]) == {"8": both["8"]}
    assert {state for state, *_ in states(ledger).values()} == {"planned"}


def test_plan_of_nothing_withdraws_nothing(ledger: Ledger) -> None:
    """What waits and is not due any more is dropped by resolving, which can name the reason."""
    notices = plan(ledger, due(("1", "7", "day")))
    assert plan(ledger, due()) == {}
    assert state(ledger, notices["7"]) == "planned"


def test_modes_keep_their_own_rows(ledger: Ledger, sending: OpenSending) -> None:
    rehearsal = plan(ledger, due(("1", "7", "day")), mode=Mode.REDIRECT)
    with sending(mode=Mode.REDIRECT) as sender:
        deliver(sender, rehearsal["7"], SENT)
    live = plan(ledger, due(("1", "7", "day")))
    with sending(mode=Mode.REDIRECT) as sender:
        assert waiting(sender, "day") == []
    with sending() as sender:
        assert waiting(sender, "day") == [live["7"]]
    assert told(ledger) == []
    assert told(ledger, Mode.DRY_RUN) == [], "a dry run asks what a live run would do"
    assert told(ledger, Mode.REDIRECT) == [("1", "7", EXPIRY - DAY, None, True)]


def test_told_is_the_latest_threshold_by_key(ledger: Ledger, sending: OpenSending) -> None:
    with sending() as sender:
        for tier in ("month", "day", "week"):
            deliver(sender, plan(ledger, due(("1", "7", tier), ("1", "8", "month")))["7"], SENT)
        deliver(sender, plan(ledger, due(("1", "8", "month")))["8"], SENT)
    assert told(ledger) == [
        ("1", "7", EXPIRY - DAY, None, True),
        ("1", "8", EXPIRY - 30 * DAY, None, True),
    ]


def test_told_looks_at_the_window_only(ledger: Ledger, sending: OpenSending) -> None:
    with sending() as sender:
        deliver(sender, plan(ledger, due(("1", "7", "day")))["7"], SENT)
    moment = timedelta(microseconds=1)
    for after, before, rows in [
        (EXPIRY, EXPIRY + moment, 1),
        (EXPIRY + moment, EXPIRY + DAY, 0),
        (EXPIRY - DAY, EXPIRY, 0),
    ]:
        assert len(ledger.told(Window(expires_after=after, expires_before=before), Mode.LIVE)) == rows


def test_refusal_for_good_is_known_with_the_address_it_was_for(ledger: Ledger, sending: OpenSending) -> None:
    notices = plan(ledger, due(("1", "7", "day")))
    with sending() as sender:
        deliver(sender, notices["7"], REFUSED)
    assert told(ledger) == [("1", "7", None, EXPIRY - DAY, False)]
    with ledger.planning(run_id="planner", mode=Mode.LIVE) as planning:
        refused = planning.refused(["1", "2"])
        assert refused.to_dict("records") == [
            {"notice_id": notices["7"], "token_id": "1", "recipient_id": "7", "address_hash": HASH}
        ]
        planning.release([notices["7"]])
    assert told(ledger) == []
    assert set(plan(ledger, due(("1", "7", "day")))) == {"7"}, "with another address it is due again"


def test_two_planners_at_once_plan_each_notice_once(ledger: Ledger) -> None:
    lines = due(*((str(number), str(number % 40), "day") for number in range(120)))
    start = threading.Barrier(4)

    def one(name: int) -> dict[str, str]:
        start.wait()
        return plan(ledger, lines, run_id=f"planner-{name}")

    with ThreadPoolExecutor() as pool:
        first, *others = pool.map(one, range(4))
    assert others == [first] * 3
    assert len(states(ledger)) == 40
    assert query(ledger, "SELECT count(DISTINCT planned_by) FROM token_pipelines.notices") == [(1,)]


def test_plan_that_fails_leaves_nothing(ledger: Ledger) -> None:
    def fail_at_the_end() -> None:
        with ledger.planning(run_id="planner", mode=Mode.LIVE) as planning:
            draft = planning.draft(due(("1", "7", "day")), tiers=TIERS, since=SINCE)
            planning.carry_out(draft, day=TODAY, at=NOW, message_domain="example.org")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_at_the_end()
    assert states(ledger) == {}


def test_waiting_of_a_tier_no_longer_configured_is_closed(ledger: Ledger, sending: OpenSending) -> None:
    notices = plan(ledger, due(("1", "7", "day"), ("2", "8", "week"), ("3", "9", "week"), ("4", "10", "week")))
    with sending() as sender:
        deliver(sender, notices["9"], SENT)
        deliver(sender, notices["10"], PUT_OFF)
    with ledger.planning(run_id="planner", mode=Mode.LIVE) as planning:
        assert planning.close_tiers_other_than(["day", "month"], SINCE) == 2
        assert planning.close_tiers_other_than(["day", "month"], SINCE) == 0
    assert {who: states(ledger)[notice][:2] for who, notice in notices.items()} == {
        "7": ("planned", None),
        "8": ("withdrawn", "superseded"),
        "9": ("sent", None),
        "10": ("withdrawn", "superseded"),
    }
    assert set(plan(ledger, due(("2", "8", "month")))) == {"8"}


def test_draft_writes_nothing_and_knows_its_size(ledger: Ledger) -> None:
    plan(ledger, due(("1", "7", "day"), ("2", "8", "week")))
    before = states(ledger)
    with ledger.planning(run_id="planner", mode=Mode.DRY_RUN) as planning:
        draft = planning.draft(due(("1", "7", "day"), ("2", "8", "day"), ("3", "9", "day")), tiers=TIERS, since=SINCE)
    assert draft.size == 2
    assert len(draft.withdrawn) == 1
    assert draft.kept["recipient_id"].tolist() == ["7"]
    assert states(ledger) == before


# Claiming


def many(ledger: Ledger, count: int) -> list[str]:
    return list(plan(ledger, due(*((str(number), str(number), "day") for number in range(count)))).values())


def test_claim_says_what_a_sender_needs_to_know(ledger: Ledger, sending: OpenSending) -> None:
    lines = pd.concat([due(("1", "7", "day")), due(("2", "7", "week"), expires_at=EXPIRY + DAY)], ignore_index=True)
    notices = plan(ledger, lines)
    with sending() as sender:
        claimed = claim(sender, [notices["7"]])
        assert claimed == {
            notices["7"]: Notice(
                notice_id=notices["7"],
                recipient_id="7",
                tier="day",
                message_id=f"<{notices['7']}@example.org>",
                claimed_from=State.PLANNED,
                attempts=0,
                first_tried_at=None,
                tokens=(
                    DueToken(token_id="1", expires_at=EXPIRY, threshold=EXPIRY - DAY, tier="day"),
                    DueToken(token_id="2", expires_at=EXPIRY + DAY, threshold=EXPIRY - 6 * DAY, tier="week"),
                ),
            )
        }
        assert states(ledger)[notices["7"]] == ("claimed", None, "run-1", "planned")
        assert claim(sender, [notices["7"]]) == {}, "not a second time, not even by the same run"
    assert states(ledger)[notices["7"]] == ("planned", None, None, None), "given back at the end"


def test_two_claimers_at_once_share_the_work(ledger: Ledger, sending: OpenSending) -> None:
    ids = many(ledger, 200)
    start = threading.Barrier(8)

    def work(sender: Sending) -> list[str]:
        start.wait()
        found: list[str] = []
        for first in range(0, len(ids), 25):
            found += claim(sender, ids[first : first + 25])
        return found

    with sending("run-1") as one, sending("run-2") as two, ThreadPoolExecutor(8) as pool:
        shares = list(pool.map(work, [one, two] * 4))
    counted = Counter(notice for share in shares for notice in share)
    assert counted == Counter(ids)


def test_claim_takes_what_is_free_while_another_is_claiming(ledger: Ledger, sending: OpenSending) -> None:
    """SKIP LOCKED: a claim in progress elsewhere neither blocks nor is taken twice."""
    ids = many(ledger, 2)
    with ledger.engine.begin() as other, sending() as sender:
        other.execute(text("SELECT FROM token_pipelines.notices WHERE notice_id = :id FOR UPDATE"), {"id": ids[0]})
        assert list(claim(sender, ids)) == [ids[1]]


def test_planning_and_claiming_wait_for_each_other(ledger: Ledger, sending: OpenSending) -> None:
    """While somebody plans, nobody claims: planning sees each notice either waiting or claimed."""
    (notice,) = many(ledger, 1)
    claimed = threading.Event()

    def claim_it() -> list[str]:
        with sending() as sender:
            found = list(claim(sender, [notice]))
            claimed.set()
            return found

    with ThreadPoolExecutor() as pool:
        with ledger.planning(run_id="planner", mode=Mode.LIVE) as planning:
            future = pool.submit(claim_it)
            assert not claimed.wait(0.3)
            planning.withdraw([notice])
        assert future.result(10) == []


def test_claim_leaves_what_is_not_waiting(ledger: Ledger, sending: OpenSending) -> None:
    ids = many(ledger, 4)
    with sending() as sender:
        for notice, outcome in zip(ids, [SENT, REFUSED, NO_ANSWER], strict=False):
            deliver(sender, notice, outcome)
        assert list(claim(sender, ids, resend=False)) == [ids[3]]
        assert list(claim(sender, ids)) == [ids[2]]


def test_waiting_is_oldest_first_and_of_one_tier(ledger: Ledger, sending: OpenSending) -> None:
    """The day is a label: what was planned lately for a day long past waits as well."""
    old = plan(ledger, due(("1", "7", "day"), ("2", "8", "week")), day=TODAY - 400 * DAY)
    forgotten = plan(ledger, due(("3", "9", "day")))
    query(
        ledger,
        "UPDATE token_pipelines.notices SET planned_at = planned_at - interval '41 days' WHERE recipient_id = '9'",
    )
    new = plan(ledger, due(("4", "10", "day")), day=TODAY)
    query(
        ledger, "UPDATE token_pipelines.notices SET planned_at = planned_at + interval '1 s' WHERE recipient_id = '10'"
    )
    assert forgotten
    with sending() as sender:
        assert waiting(sender, "day") == [old["7"], new["10"]]
        assert waiting(sender, "week") == [old["8"]]
        assert waiting(sender, "month") == []


# Marking and recording


def test_mark_is_committed_before_the_socket(ledger: Ledger, sending: OpenSending) -> None:
    (notice,) = many(ledger, 1)
    with sending() as sender:
        claim(sender, [notice])
        assert mark(sender, notice, NOW)
        assert states(ledger)[notice] == ("sending", None, "run-1", "planned")
        assert query(ledger, "SELECT attempts, first_tried_at FROM token_pipelines.notices") == [(1, NOW)]
        assert told(ledger) == [("0", "0", EXPIRY - DAY, None, False)]
        sender.settle([record(notice, SENT)], {})


@pytest.mark.parametrize("outcome", [SENT, REFUSED, PUT_OFF, NO_ANSWER], ids=lambda outcome: str(outcome.state))
def test_record_keeps_an_outcome(ledger: Ledger, sending: OpenSending, outcome: Outcome) -> None:
    (notice,) = many(ledger, 1)
    with sending() as sender:
        deliver(sender, notice, outcome)
    assert states(ledger)[notice] == (outcome.state, None, None, None)
    assert query(ledger, "SELECT state, address_hash FROM token_pipelines.attempts") == [(outcome.state, HASH)]
    (entry,) = ledger.history()
    assert entry["sent_at"] == ("2026-11-20T09:00:00Z" if outcome is SENT else None)
    assert entry["attempts"] == [
        {
            "at": "2026-11-20T09:00:00Z",
            "run_id": "run-1",
            "stage": outcome.stage,
            "code": outcome.code,
            "enhanced": outcome.enhanced,
            "reply": outcome.reply,
            "queue_id": outcome.queue_id,
        }
    ]


def test_settle_records_one_outcome_and_marks_the_next_in_one_commit(ledger: Ledger, sending: OpenSending) -> None:
    first, second = many(ledger, 2)
    with sending() as sender:
        claim(sender, [first, second])
        mark(sender, first, NOW)
        assert mark(sender, second, NOW, after=record(first, SENT))
        assert (state(ledger, first), state(ledger, second)) == ("sent", "sending")
        sender.settle([record(second, REFUSED)], {})
        assert (state(ledger, first), state(ledger, second)) == ("sent", "failed")


def test_mark_is_made_once(ledger: Ledger, sending: OpenSending) -> None:
    """What is on a socket already, or was answered, is not sent by another thread of the same run."""
    (notice,) = many(ledger, 1)
    with sending() as sender:
        claim(sender, [notice])
        assert [mark(sender, notice, NOW) for _ in range(2)] == [True, False]
        sender.settle([record(notice, SENT)], {})
        assert not mark(sender, notice, NOW)
    assert query(ledger, "SELECT state, attempts FROM token_pipelines.notices") == [("sent", 1)]


def test_skip_says_why_and_frees_the_tokens(ledger: Ledger, sending: OpenSending) -> None:
    notices = plan(ledger, due(("1", "7", "day"), ("2", "7", "day")))
    with sending() as sender:
        (notice,) = claim(sender, notices.values()).values()
        sender.skip(notice, Reason.REVOKED)
    assert states(ledger)[notice.notice_id] == ("skipped", "revoked", None, None)
    assert released(ledger) == {(notice.notice_id, token): (True, "revoked") for token in ("1", "2")}
    assert told(ledger) == []
    again = plan(ledger, due(("1", "7", "day")))
    assert state(ledger, again["7"]) == "planned", "a revocation that is undone leaves it due"


def test_drop_frees_one_token_and_keeps_the_other(ledger: Ledger, sending: OpenSending) -> None:
    notices = plan(ledger, due(("1", "7", "day"), ("2", "7", "day")))
    with sending() as sender:
        (notice,) = claim(sender, notices.values()).values()
        sender.drop(notice, {"1": Reason.RENEWED})
        mark(sender, notice.notice_id, NOW)
        sender.settle([record(notice.notice_id, SENT)], {})
    assert told(ledger) == [("2", "7", EXPIRY - DAY, None, True)]
    (entry,) = ledger.history()
    assert [token.get("dropped") for token in entry["tokens"]] == ["renewed", None]  # type: ignore[attr-defined]


def test_reopen_puts_refusals_off(ledger: Ledger, sending: OpenSending) -> None:
    first, second = many(ledger, 2)
    with sending() as sender:
        deliver(sender, first, REFUSED)
        deliver(sender, second, SENT)
        sender.reopen([first, second])
        assert (state(ledger, first), state(ledger, second)) == ("deferred", "sent")
        assert waiting(sender, "day") == [first]


def test_end_of_a_run_gives_back_what_it_did_not_try(ledger: Ledger, sending: OpenSending) -> None:
    planned, deferred, doubted, on_socket = many(ledger, 4)
    with sending() as sender:
        deliver(sender, deferred, PUT_OFF)
        deliver(sender, doubted, NO_ANSWER)

    def interrupted() -> None:
        with sending() as sender:
            claim(sender, [planned, deferred, doubted, on_socket])
            mark(sender, on_socket, NOW)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert {notice: row[0] for notice, row in states(ledger).items()} == {
        planned: "planned",
        deferred: "deferred",
        doubted: "unknown",
        on_socket: "unknown",
    }


# A notice in doubt


def test_doubt_is_resent_at_most_max_attempts_times(ledger: Ledger, sending: OpenSending) -> None:
    (notice,) = many(ledger, 1)
    with sending() as sender:
        deliver(sender, notice, NO_ANSWER)
        assert waiting(sender, "day", resend=False) == []
        assert waiting(sender, "day", max_attempts=1) == []
        assert waiting(sender, "day", max_attempts=2) == [notice]
        claimed = claim(sender, [notice], max_attempts=2)[notice]
        assert (claimed.claimed_from, claimed.attempts, claimed.first_tried_at) == (State.UNKNOWN, 1, NOW)
        mark(sender, notice, NOW + DAY)
        sender.settle([record(notice, NO_ANSWER)], {})
        assert query(ledger, "SELECT attempts, first_tried_at FROM token_pipelines.notices") == [(2, NOW)]
        assert claim(sender, [notice], max_attempts=2) == {}


def test_doubt_keeps_its_tokens_whatever_resolving_says(ledger: Ledger, sending: OpenSending) -> None:
    (notice,) = many(ledger, 1)
    with sending() as sender:
        deliver(sender, notice, NO_ANSWER)
        claimed = claim(sender, [notice])[notice]
        sender.drop(claimed, {"0": Reason.RENEWED})
        sender.skip(claimed, Reason.REVOKED)
    assert states(ledger)[notice] == ("unknown", "revoked", None, None)
    assert released(ledger) == {(notice, "0"): (False, None)}
    assert told(ledger) == [("0", "0", EXPIRY - DAY, None, False)]


# Runs that died


def test_claims_of_a_lapsed_run_are_freed(ledger: Ledger, sending: OpenSending) -> None:
    planned, deferred, doubted, on_socket = many(ledger, 4)
    with sending() as sender:
        deliver(sender, deferred, PUT_OFF)
        deliver(sender, doubted, NO_ANSWER)
    dead = Sending(ledger.engine, run_id="dead", mode=Mode.LIVE, claim_lock=1)
    with ledger.alive("dead"):
        claim(dead, [planned, deferred, doubted, on_socket])
        mark(dead, on_socket, NOW)
        with sending("run-2"):
            assert {row[0] for row in states(ledger).values()} == {"claimed", "sending"}, "it lives"
        let_lapse(ledger, "dead")
        assert ledger.expired_leases(["dead", "run-1", "never heard of"]) == {"dead"}
        with sending("run-2") as sender:
            assert states(ledger) == {
                planned: ("planned", None, None, None),
                deferred: ("deferred", None, None, None),
                doubted: ("unknown", None, None, None),
                on_socket: ("unknown", None, None, None),
            }
            assert set(claim(sender, [planned, deferred, doubted, on_socket])) == {
                planned,
                deferred,
                doubted,
                on_socket,
            }
            assert not mark(dead, planned, NOW), "its claim was taken over: it may not send"
            assert not mark(dead, deferred, NOW, after=record(doubted, REFUSED))
            assert states(ledger)[doubted] == ("claimed", None, "run-2", "unknown"), "nor write over the other's claim"
            assert states(ledger)[planned] == ("claimed", None, "run-2", "planned")
            assert not mark(dead, deferred, NOW, after=record(on_socket, SENT))
            assert states(ledger)[on_socket] == ("sent", None, None, None), "save for what it knows to have arrived"
            assert not mark(sender, on_socket, NOW), "so that nobody sends it again"
    dead.close()


def test_answer_that_comes_after_a_run_was_held_for_dead_still_counts(ledger: Ledger, sending: OpenSending) -> None:
    (notice,) = many(ledger, 1)
    late = Sending(ledger.engine, run_id="late", mode=Mode.LIVE, claim_lock=1)
    claim(late, [notice])
    mark(late, notice, NOW)
    with sending("run-2"):
        assert state(ledger, notice) == "unknown", "never enlisted: dead"
    late.settle([record(notice, SENT)], {})
    assert state(ledger, notice) == "sent"
    late.close()


def test_claims_of_a_run_that_ended_are_freed(ledger: Ledger, sending: OpenSending) -> None:
    ids = many(ledger, 2)
    ended = Sending(ledger.engine, run_id="ended", mode=Mode.LIVE, claim_lock=1)
    with ledger.alive("ended"):
        claim(ended, ids)
        with sending("run-2", ended=["another"]) as sender:
            assert claim(sender, ids) == {}
        with sending("run-2", ended=["ended"]) as sender:
            assert set(claim(sender, ids)) == set(ids)


def test_doubt_of_a_dead_run_is_on_record(ledger: Ledger, sending: OpenSending) -> None:
    (notice,) = many(ledger, 1)
    dead = Sending(ledger.engine, run_id="dead", mode=Mode.LIVE, claim_lock=1)
    claim(dead, [notice])
    mark(dead, notice, NOW)
    with sending("run-2"):
        pass
    (entry,) = ledger.history()
    attempts: Any = entry["attempts"]
    assert [(attempt["run_id"], attempt["stage"], attempt["reply"]) for attempt in attempts] == [
        ("dead", None, "the sending process ended before an answer came")
    ]
    dead.close()


# What the database refuses, whoever asks


@pytest.mark.parametrize(
    "change",
    [
        "state = 'lost'",
        "mode = 'dry_run'",
        "state = 'claimed'",
        "state = 'sending'",
        "claimed_by = 'run-1', claimed_from = 'planned'",
        "state = 'claimed', claimed_by = 'run-1'",
        "state = 'sent'",
        "sent_at = now()",
        "state = 'skipped'",
        "recipient_id = NULL",
    ],
)
def test_impossible_state_is_refused(ledger: Ledger, change: str) -> None:
    many(ledger, 1)
    with (
        psycopg.connect(ledger.url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection,
        pytest.raises(psycopg.IntegrityError),
    ):
        connection.execute(b"UPDATE token_pipelines.notices SET " + change.encode())


def test_second_promise_is_refused_by_the_key(ledger: Ledger) -> None:
    first, second = many(ledger, 2)
    copy_line = (
        "INSERT INTO token_pipelines.notice_tokens"
        " (notice_id, token_id, recipient_id, expires_at, threshold, mode, tier)"
        " SELECT CAST(:to AS uuid), token_id, recipient_id, expires_at, threshold, mode, tier"
        " FROM token_pipelines.notice_tokens WHERE notice_id = CAST(:of AS uuid)"
    )
    with ledger.engine.begin() as connection, pytest.raises(Exception, match="notice_tokens_told_once"):
        connection.execute(text(copy_line), {"of": first, "to": second})
    query(ledger, "UPDATE token_pipelines.notice_tokens SET released = true")
    query(ledger, copy_line, of=first, to=second)


# History


def test_history_says_everything_of_a_notice(ledger: Ledger, sending: OpenSending) -> None:
    notices = plan(ledger, due(("1", "7", "day"), ("2", "7", "week")))
    with sending() as sender:
        deliver(sender, notices["7"], SENT)
    (entry,) = ledger.history()
    assert entry == {
        "version": 1,
        "notice_id": notices["7"],
        "date": "2026-11-20",
        "mode": "live",
        "tier": "day",
        "state": "sent",
        "reason": None,
        "recipient_id": "7",
        "tokens": [
            {"token_id": "1", "expires_at": "2026-11-20T21:00:00.123457Z", "tier": "day"},
            {"token_id": "2", "expires_at": "2026-11-20T21:00:00.123457Z", "tier": "week"},
        ],
        "message_id": f"<{notices['7']}@example.org>",
        "sent_at": "2026-11-20T09:00:00Z",
        "attempts": [
            {
                "at": "2026-11-20T09:00:00Z",
                "run_id": "run-1",
                "stage": "dot",
                "code": 250,
                "enhanced": "2.0.0",
                "reply": "2.0.0 Ok",
                "queue_id": "Q1",
            }
        ],
    }


def test_history_can_be_narrowed(ledger: Ledger) -> None:
    today = plan(ledger, due(("1", "7", "day"), ("2", "7", "day"), ("1", "8", "day")))
    later = plan(ledger, due(("3", "9", "day")), day=TODAY + DAY)

    def found(**by: Any) -> set[object]:  # noqa: ANN401 -- what history takes
        return {entry["notice_id"] for entry in ledger.history(**by)}

    assert found() == {*today.values(), *later.values()}
    assert found(day=TODAY) == set(today.values())
    assert found(token_id="2") == {today["7"]}
    assert found(token_id="1") == set(today.values())
    assert found(recipient_id="8") == {today["8"]}
    assert found(recipient_id="8", token_id="2") == set()
    assert found(recipient_id="8' OR '1'='1") == set()


def test_history_of_more_than_one_page_is_whole_and_oldest_first(ledger: Ledger) -> None:
    many(ledger, 1100)
    query(
        ledger,
        "UPDATE token_pipelines.notices SET planned_at = planned_at + recipient_id::int * interval '1 second'",
    )
    entries = list(ledger.history())
    assert [entry["recipient_id"] for entry in entries] == [str(number) for number in range(1100)]
    assert all(
        [token["token_id"] for token in entry["tokens"]] == [entry["recipient_id"]]  # type: ignore[attr-defined]
        for entry in entries
    )


# Addresses, marks and the fuse


def test_addresses_are_kept_as_keyed_hashes_only(ledger: Ledger, database_url: str) -> None:
    found = ledger.hash_address("Ada@Example.org ")
    again = Ledger(database_url)
    assert again.hash_address("ada@example.org") == found
    assert again.hash_address("ada@example.com") != found
    again.suppress(found, at=NOW, cause="refused")
    again.suppress(found, at=NOW, cause="once more")
    assert ledger.suppressed([found, HASH]) == {found}
    assert ledger.suppressed([]) == set()
    again.close()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("Ada@BÜCHER.example", "ada@bücher.example"),
        ("ada@straße.example", "ada@xn--strae-oqa.example"),
    ],
)
def test_hash_of_one_address_however_its_domain_is_spelt(ledger: Ledger, one: str, other: str) -> None:
    assert ledger.hash_address(one) == ledger.hash_address(other)
    assert ledger.hash_address(one) != ledger.hash_address("ada@strasse.example")


def test_hash_of_a_plain_address_is_what_older_ledgers_hold(ledger: Ledger) -> None:
    """The suppressions of years ago stay valid."""
    ledger.hash_address("")  # makes the key
    [(key,)] = query(ledger, "SELECT value FROM token_pipelines.secrets")
    for address in ("ada@example.org", " Ada+B@Example.ORG", "ada@xn--bcher-kva.example", "ada@no domain"):
        expected = hmac.digest(bytes(key), address.strip().lower().encode(), "sha256")
        assert ledger.hash_address(address) == expected


def test_hash_of_half_a_character(ledger: Ledger) -> None:
    """A report may name anything."""
    assert ledger.hash_address("ada\ud800@example.org") != ledger.hash_address("ada@example.org")


def test_hash_key_is_each_ledgers_own(ledger: Ledger) -> None:
    before = ledger.hash_address("ada@example.org")
    query(ledger, "DROP SCHEMA token_pipelines CASCADE")
    fresh = Ledger(ledger.url.render_as_string(hide_password=False))
    fresh.migrate()
    assert fresh.hash_address("ada@example.org") != before
    fresh.close()


def test_mark_notified_keeps_the_latest_by_mode(ledger: Ledger) -> None:
    assert ledger.told_before(Mode.LIVE) is None
    ledger.mark_notified(NOW, mode=Mode.LIVE, at=NOW)
    ledger.mark_notified(NOW - DAY, mode=Mode.LIVE, at=NOW + DAY)
    assert ledger.told_before(Mode.LIVE) == NOW
    assert ledger.told_before(Mode.DRY_RUN) == NOW
    assert ledger.told_before(Mode.REDIRECT) is None


def test_fuse_stays_tripped_until_approved(ledger: Ledger) -> None:
    assert not ledger.has_open_trip(Mode.LIVE)
    for number, day in enumerate([TODAY, TODAY + DAY]):
        ledger.record_fuse_trip(day=day, mode=Mode.LIVE, run_id="run-1", new=10 + number, limit=9, at=NOW)
    assert ledger.has_open_trip(Mode.LIVE)
    assert not ledger.has_open_trip(Mode.REDIRECT)
    with ledger.planning(run_id="planner", mode=Mode.LIVE) as planning:
        assert planning.open_trip() == (TODAY, 10, 9)
        planning.approve_trips(NOW)
        assert planning.open_trip() is None
    assert not ledger.has_open_trip(Mode.LIVE)
