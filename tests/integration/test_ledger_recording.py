"""What is recorded of a notice: the mark before the socket, the outcome, doubt, and what a dead run leaves."""

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
    assert states(ledger)[notice] == (outcome.state, None, None, None)
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
    (entry,) = ledger.history.entries()
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
