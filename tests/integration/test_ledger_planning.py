"""What a plan writes into the ledger, withdraws from it, and knows of what was told."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from support.ledger import (
    DAY,
    EXPIRY,
    HASH,
    NO_ANSWER,
    NOW,
    PUT_OFF,
    REFUSED,
    SENT,
    SINCE,
    TIERS,
    TODAY,
    OpenSending,
    claim,
    deliver,
    due,
    plan,
    query,
    released,
    state,
    states,
    told,
    waiting,
)

from token_pipelines.ledger.fuse import Trip
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.ledger.told import RefusedLine
from token_pipelines.model import Mode, Outcome
from token_pipelines.policy import Window

# Planning


def test_plan_makes_one_notice_a_recipient_at_the_most_urgent_tier(ledger: Ledger) -> None:
    lines = due(("1", "7", "week"), ("2", "7", "day"), ("3", "8", "month"), ("4", "7", "month"))
    notices = plan(ledger, lines)
    assert set(notices) == {"7", "8"}
    entries = {entry["recipient_id"]: entry for entry in ledger.history.entries()}
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
        assert len(ledger.told.history(Window(expires_after=after, expires_before=before), Mode.LIVE)) == rows


def test_refusal_for_good_is_known_with_the_address_it_was_for(ledger: Ledger, sending: OpenSending) -> None:
    notices = plan(ledger, due(("1", "7", "day")))
    with sending() as sender:
        deliver(sender, notices["7"], REFUSED)
        sender.fail([notices["7"]])
    assert told(ledger) == [("1", "7", None, EXPIRY - DAY, False)]
    refused = ledger.told.refused(["1", "2"], Mode.LIVE)
    assert refused == [RefusedLine(notice_id=notices["7"], token_id="1", recipient_id="7", address_hash=HASH)]
    assert ledger.told.refused(["1", "2"], Mode.REDIRECT) == []
    with ledger.planning(run_id="planner", mode=Mode.LIVE) as planning:
        assert planning.release(refused) == 1
        assert planning.release(refused) == 0, "freed already"
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
    assert draft.size == 1, "a notice that replaces one that waits is not new"
    assert draft.new["recipient_id"].tolist() == ["8", "9"]
    assert len(draft.withdrawn) == 1
    assert draft.kept["recipient_id"].tolist() == ["7"]
    assert states(ledger) == before


# Addresses, marks and the fuse


def test_mark_notified_keeps_the_latest_by_mode(ledger: Ledger) -> None:
    assert ledger.told.before(Mode.LIVE) is None
    ledger.told.mark_before(NOW, mode=Mode.LIVE, at=NOW)
    ledger.told.mark_before(NOW - DAY, mode=Mode.LIVE, at=NOW + DAY)
    assert ledger.told.before(Mode.LIVE) == NOW
    assert ledger.told.before(Mode.DRY_RUN) == NOW
    assert ledger.told.before(Mode.REDIRECT) is None


def test_fuse_stays_tripped_until_approved(ledger: Ledger) -> None:
    fuse = ledger.fuse
    trips = [Trip(day=TODAY, new_notices=10, max_notices=9), Trip(day=TODAY + DAY, new_notices=11, max_notices=9)]
    assert fuse.open_trip(Mode.LIVE, max_notices=9) is None
    for trip in trips:
        fuse.trip(trip, mode=Mode.LIVE, run_id="run-1", at=NOW)
    assert fuse.open_trip(Mode.LIVE, max_notices=9) == trips[0]
    assert fuse.open_trip(Mode.DRY_RUN, max_notices=9) == trips[0]
    assert fuse.open_trip(Mode.REDIRECT, max_notices=9) is None
    with ledger.planning(run_id="planner", mode=Mode.LIVE) as planning:
        planning.fuse.approve(Mode.LIVE, at=NOW, by="a person")
        assert planning.fuse.open_trip(Mode.LIVE, max_notices=9) is None
    assert fuse.open_trip(Mode.LIVE, max_notices=9) is None


@pytest.mark.parametrize(("limit", "stops"), [(9, 10), (10, 11), (11, None)])
def test_trip_within_the_present_limit_stops_nothing(ledger: Ledger, limit: int, stops: int | None) -> None:
    for new in (10, 11):
        ledger.fuse.trip(Trip(day=TODAY, new_notices=new, max_notices=9), mode=Mode.LIVE, run_id="run-1", at=NOW)

    assert getattr(ledger.fuse.open_trip(Mode.LIVE, max_notices=limit), "new_notices", None) == stops
    ledger.fuse.approve(Mode.LIVE, at=NOW, by="a person", up_to=limit)
    assert getattr(ledger.fuse.open_trip(Mode.LIVE, max_notices=9), "new_notices", None) == stops


def test_planned_on_a_day_counts_what_was_not_withdrawn(ledger: Ledger) -> None:
    plan(ledger, due(("1", "7", "day"), ("2", "8", "week")))
    plan(ledger, due(("2", "8", "day")), day=TODAY + DAY)

    assert [ledger.fuse.planned_on(TODAY + back * DAY, Mode.LIVE) for back in range(3)] == [1, 1, 0]
    assert ledger.fuse.planned_on(TODAY, Mode.REDIRECT) == 0
