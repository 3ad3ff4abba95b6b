"""Claims: who gets which notice, with several claimers at once."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
from sqlalchemy import text
from support.ledger import (
    DAY,
    EXPIRY,
    NO_ANSWER,
    REFUSED,
    SENT,
    TODAY,
    OpenSending,
    claim,
    deliver,
    due,
    many,
    plan,
    query,
    states,
    waiting,
)

from token_pipelines.ledger.ledger import Ledger
from token_pipelines.ledger.sending import Sending
from token_pipelines.model import DueToken, Mode, Notice, State


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
        sender.fail([ids[1]])
        assert list(claim(sender, ids, resend=False)) == [ids[3]]
        assert list(claim(sender, ids)) == [ids[2]]


def test_waiting_is_of_one_tier_and_of_any_day(ledger: Ledger, sending: OpenSending) -> None:
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
        assert sorted(waiting(sender, "day")) == sorted([old["7"], new["10"]])
        assert waiting(sender, "week") == [old["8"]]
        assert waiting(sender, "month") == []
