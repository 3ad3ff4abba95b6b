"""A small chaos run, and the proof that its verdict finds each way of breaking the promise.

The whole run is `make chaos`. Where the real product is broken on purpose there: `make chaos ARGS="--sabotage …"`.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from chaos.__main__ import table
from chaos.registry import Population
from chaos.run import Settings, unleash
from chaos.verdict import Arrival, AttemptRow, Crash, Evidence, Freeze, NoticeRow, Verdict, judge

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def arrival(who: str, at: float = 0, *, message_id: str | None = None, digest: str = "bytes") -> Arrival:
    return Arrival(
        recipient_id=who,
        message_id=message_id or f"<{who}@example.org>",
        at=NOON + seconds(at),
        queue_id=f"Q{who}{at}",
        digest=digest,
        tokens=frozenset({f"token{who}"}),
    )


def notice(who: str, state: str = "sent") -> NoticeRow:
    return NoticeRow(notice_id=who, recipient_id=who, message_id=f"<{who}@example.org>", state=state, tier="day")


def attempt(
    who: str, state: str, at: float = 0, *, stage: str | None = "dot", queued: float | None = None
) -> AttemptRow:
    queue_id = None if queued is None else f"Q{who}{queued}"
    return AttemptRow(notice_id=who, at=NOON + seconds(at), run_id="run", state=state, stage=stage, queue_id=queue_id)


def evidence(**changes: object) -> Evidence:
    """Two recipients, each told once and recorded, and a bystander; then what is given instead."""
    facts: dict[str, object] = {
        "population": Population(
            due={who: frozenset({f"token{who}"}) for who in ("1", "2")}, bystanders=frozenset({"3"})
        ),
        "refused": frozenset(),
        "connections": 4,
        "arrivals": [arrival("1"), arrival("2")],
        "notices": [notice("1"), notice("2")],
        "attempts": [attempt("1", "sent", queued=0), attempt("2", "sent", queued=0)],
    }
    return Evidence(**(facts | changes))  # type: ignore[arg-type]


TWICE = [arrival("1"), arrival("1", 5), arrival("2")]
TRIED_TWICE = [attempt("1", "unknown", 1), attempt("1", "sent", 5, queued=5), attempt("2", "sent", queued=0)]
FORGOTTEN = TRIED_TWICE[1:]


def duplicates(verdict: Verdict) -> tuple[int, dict[str, int]]:
    return verdict.duplicates, dict(verdict.by_cause)


def test_verdict_holds() -> None:
    verdict = judge(evidence())
    assert (verdict.failures, verdict.lost, verdict.told, verdict.duplicates) == ([], 0, 2, 0)


def test_verdict_holds_for_a_copy_after_a_doubt() -> None:
    verdict = judge(evidence(arrivals=TWICE, attempts=TRIED_TWICE))
    assert (verdict.failures, duplicates(verdict)) == ([], (1, {"unknown": 1}))


@pytest.mark.parametrize("thawed", [-0.5, 4])
def test_verdict_holds_for_a_copy_from_a_run_that_was_held_for_dead(thawed: float) -> None:
    """It had marked the notice and then slept: the doubt is older than both copies, of which one is its own."""
    attempts = [replace(attempt("1", "unknown", -1), stage=None), *FORGOTTEN]
    freeze = Freeze(run_id="run", thawed_at=NOON + seconds(thawed))
    verdict = judge(evidence(arrivals=TWICE, attempts=attempts, freezes=[freeze]))
    assert (verdict.failures, duplicates(verdict)) == ([], (1, {"unknown": 1}))


def test_verdict_holds_for_a_refusal_for_good() -> None:
    verdict = judge(
        evidence(
            refused=frozenset({"1"}),
            arrivals=[arrival("2")],
            notices=[notice("1", "failed"), notice("2")],
            attempts=[attempt("1", "failed"), attempt("2", "sent", queued=0)],
        )
    )
    assert (verdict.failures, verdict.lost) == ([], 0)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (evidence(arrivals=[arrival("1")], notices=[notice("1"), notice("2", "unknown")]), "lost"),
        (evidence(arrivals=[arrival("1")]), "marked sent and never accepted"),
        (evidence(arrivals=TWICE, attempts=FORGOTTEN), "sent again, and the ledger has no doubt"),
        (
            evidence(arrivals=TWICE, attempts=FORGOTTEN, crashes=[Crash(at=NOON + seconds(0.5), senders=1)]),
            "sent again, and the ledger has no doubt",  # not even a crash of Postgres may lose a mark
        ),
        (
            evidence(arrivals=TWICE, attempts=[attempt("1", "unknown", -1), *FORGOTTEN]),
            "sent again, and the ledger has no doubt",  # the doubt was over
        ),
        (
            evidence(arrivals=TWICE, attempts=[attempt("1", "unknown", 6), *FORGOTTEN]),
            "sent again, and the ledger has no doubt",  # the doubt came after the second copy
        ),
        (
            evidence(arrivals=[arrival("1"), arrival("1", 5, digest="other"), arrival("2")], attempts=TRIED_TWICE),
            "with other bytes",
        ),
        (
            evidence(arrivals=TWICE, attempts=[replace(TRIED_TWICE[0], stage=None), *FORGOTTEN]),
            "over the bound of 0",  # doubt without a kill
        ),
        (evidence(arrivals=[arrival("1"), arrival("2"), arrival("2", 1, message_id="<x@y>")]), "two different notices"),
        (evidence(arrivals=[arrival("1"), arrival("2"), arrival("3")]), "told of nothing due"),
        (evidence(arrivals=[arrival("1"), replace(arrival("2"), tokens=frozenset())]), "does not name just"),
        (evidence(notices=[notice("1"), notice("2", "failed")]), "marked failed and delivered"),
        (evidence(notices=[notice("1"), notice("2", "deferred")]), "the ledger does not say so"),
        (evidence(notices=[notice("1"), notice("2", "planned")]), "still waits"),
        (evidence(notices=[notice("1")]), "ends without an answer"),
        (evidence(attempts=[attempt("1", "sent", queued=9)]), "a queue id that the relay never gave"),
        (evidence(faults=["run-001"]), "a fault of ours"),
        (evidence(after_the_end=1), "sent again when nothing was due"),
    ],
)
def test_verdict_finds_what_is_broken(broken: Evidence, said: str) -> None:
    assert any(said in failure for failure in judge(broken).failures)


def test_chaos_loses_nothing(tmp_path: Path) -> None:
    """Real processes killed with SIGKILL, Postgres killed once, a relay that misbehaves at every stage."""
    settings = Settings(recipients=300, kills=4, postgres_restarts=1, freezes=1, seed=1, seconds=200)
    result = unleash(settings, folder=tmp_path / "chaos")
    assert result.verdict.failures == [], "\n".join(table(result))
    assert (result.verdict.lost, result.evidence.kills, len(result.evidence.crashes)) == (0, 4, 1)
