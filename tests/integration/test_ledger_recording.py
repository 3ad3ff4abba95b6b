"""What is recorded of a notice: the mark before the socket, the outcome, doubt, and what a dead run leaves."""

from datetime import timedelta
from typing import Any

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
    OpenSending,
    claim,
    deliver,
    due,
    let_lapse,
    many,
    mark,
    plan,
    query,
    record,
    released,
    state,
    states,
    told,
    waiting,
)

from token_pipelines.ledger.ledger import Ledger
from token_pipelines.ledger.refusals import RefusedBefore
from token_pipelines.ledger.sending import Sending
from token_pipelines.model import Mode, Outcome, Reason, State

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
    kept = State.DEFERRED if outcome is REFUSED else outcome.state  # until it is believed
    assert states(ledger)[notice] == (kept, None, None, None)
    assert query(ledger, "SELECT state, address_hash FROM token_pipelines.attempts") == [(outcome.state, HASH)]
    (entry,) = ledger.history.entries()
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
        assert (state(ledger, first), state(ledger, second)) == ("sent", "deferred")


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
    (entry,) = ledger.history.entries()
    assert [token.get("dropped") for token in entry["tokens"]] == ["renewed", None]  # type: ignore[attr-defined]


def test_fail_believes_refusals_and_touches_nothing_else(ledger: Ledger, sending: OpenSending) -> None:
    refused, sent, taken_over = many(ledger, 3)
    with sending() as sender:
        deliver(sender, refused, REFUSED)
        deliver(sender, sent, SENT)
        deliver(sender, taken_over, REFUSED)
        claim(sender, [taken_over])
        sender.fail([refused, sent, taken_over])
        assert [state(ledger, one) for one in (refused, sent, taken_over)] == ["failed", "sent", "claimed"]
        assert waiting(sender, "day") == []


def test_waiting_puts_those_first_who_were_tried_least(ledger: Ledger, sending: OpenSending) -> None:
    """Among equals, no two runs have the same order."""
    ids = many(ledger, 40)
    tried = ids[:10]
    with sending() as sender:
        for notice in tried:
            deliver(sender, notice, PUT_OFF)
        first = waiting(sender, "day")
    with sending("run-2") as sender:
        second = waiting(sender, "day")
    for order in (first, second):
        assert sorted(order) == sorted(ids)
        assert set(order[30:]) == set(tried)
    assert first[:30] != second[:30]


def test_refused_before_counts_days_of_one_address_over_notices(ledger: Ledger, sending: OpenSending) -> None:
    """And whether the relay has accepted anything since the first of them."""
    (old,) = plan(ledger, due(("1", "7", "month"))).values()
    with sending("run-1") as sender:
        deliver(sender, old, REFUSED, at=NOW - 2 * DAY)
    with sending("run-2") as sender:
        deliver(sender, old, REFUSED, at=NOW - DAY)
        deliver(sender, old, REFUSED, at=NOW - DAY + timedelta(hours=1))
        assert sender.refused_before([old], zone="UTC") == {old: RefusedBefore(days=2, is_accepting=False)}
        (other,) = plan(ledger, due(("2", "8", "month"))).values()
        deliver(sender, other, SENT, at=NOW - DAY)
        assert sender.refused_before([old], zone="UTC") == {old: RefusedBefore(days=2, is_accepting=True)}
        assert sender.refused_before([], zone="UTC") == {}


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
    with ledger.heartbeat("dead"):
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
            assert states(ledger)[on_socket] == ("sent", None, None, None), "except for what it knows to have arrived"
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
    with ledger.heartbeat("ended"):
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
    (entry,) = ledger.history.entries()
    attempts: Any = entry["attempts"]
    assert [(attempt["run_id"], attempt["stage"], attempt["reply"]) for attempt in attempts] == [
        ("dead", None, "the sending process ended before an answer came")
    ]
    dead.close()
