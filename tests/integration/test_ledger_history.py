"""The history: what it says of a notice, how it is narrowed, and its pages."""

from typing import Any

from support.ledger import DAY, SENT, TODAY, OpenSending, deliver, due, many, plan, query

from token_pipelines.ledger.ledger import Ledger


def test_history_says_everything_of_a_notice(ledger: Ledger, sending: OpenSending) -> None:
    notices = plan(ledger, due(("1", "7", "day"), ("2", "7", "week")))
    with sending() as sender:
        deliver(sender, notices["7"], SENT)
    (entry,) = ledger.history.entries()
    assert entry == {
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
        return {entry["notice_id"] for entry in ledger.history.entries(**by)}

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
    entries = list(ledger.history.entries())
    assert [entry["recipient_id"] for entry in entries] == [str(number) for number in range(1100)]
    assert all(
        [token["token_id"] for token in entry["tokens"]] == [entry["recipient_id"]]  # type: ignore[attr-defined]
        for entry in entries
    )
