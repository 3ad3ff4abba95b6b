"""Whose trouble a refusal is, and when a run stops."""

from datetime import UTC, datetime

import pytest

from token_pipelines.delivery.acceptance import IN_A_ROW, Acceptance
from token_pipelines.ledger.refusals import RefusedBefore
from token_pipelines.ledger.settlement import Record
from token_pipelines.model import Outcome, Stage, State
from token_pipelines.smtp.answers import asks_for_less, explain, is_of_one_mailbox

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
SENT = Outcome(state=State.SENT, stage=Stage.DOT, code=250)
DEAD = Outcome(state=State.FAILED, stage=Stage.RCPT, code=550, enhanced="5.1.1", reply="5.1.1 no such user")
POLICY = Outcome(state=State.DEFERRED, stage=Stage.RCPT, code=550, enhanced="5.7.1", reply="5.7.1 listed")
FULL = Outcome(state=State.DEFERRED, stage=Stage.RCPT, code=452, enhanced="4.2.2", reply="4.2.2 full")
BUSY = Outcome(state=State.DEFERRED, stage=Stage.DOT, code=454, enhanced="4.7.0", reply="4.7.0 too fast")
LOST = Outcome(state=State.DEFERRED, stage=Stage.DATA, reply="connection lost")
NO_ANSWER = Outcome(state=State.UNKNOWN, stage=Stage.DOT, reply="no answer in time after the final dot")
UNREACHABLE = Outcome(state=State.FAILED, stage=Stage.RCPT, reply="the relay does not offer SMTPUTF8")


class Run:
    """Messages one after another, each to somebody else."""

    def __init__(self) -> None:
        self.acceptance = Acceptance(lambda outcome: explain("relay", outcome))
        self.count = 0

    def tries(self, outcome: Outcome, *, domain: str = "a.example", times: int = 1, is_excused: bool = False) -> "Run":
        for _ in range(times):
            self.count += 1
            begun_in = self.acceptance.begin()
            record = Record(notice_id=str(self.count), outcome=outcome, at=NOW, address_hash=b"")
            self.acceptance.keep(record, outcome, domain=domain, begun_in=begun_in, is_excused=is_excused)
        return self

    def over_domains(self, outcome: Outcome, times: int) -> "Run":
        for number in range(times):
            self.tries(outcome, domain=f"d{number % 3}.example")
        return self

    @property
    def believed(self) -> list[str]:
        return [record.notice_id for record in self.acceptance.believed({})]


def test_refusal_is_believed_where_another_domain_was_accepted() -> None:
    assert Run().tries(SENT, domain="b.example").tries(DEAD).believed == ["2"]
    assert Run().tries(DEAD).tries(SENT, domain="b.example").believed == ["1"], "in whatever order"


def test_refusal_is_not_believed_where_only_its_own_domain_was_accepted() -> None:
    assert Run().tries(SENT, times=9).tries(DEAD).tries(FULL, domain="b.example").believed == []


def test_refusal_is_believed_where_there_is_only_one_domain() -> None:
    """As in a company."""
    assert Run().tries(SENT).tries(DEAD).believed == ["2"]


def test_refusals_of_more_than_half_are_not_believed() -> None:
    run = Run().tries(SENT, domain="b.example", times=5).tries(DEAD, times=5)
    assert len(run.believed) == 5
    assert run.tries(DEAD).believed == []


def test_those_put_off_count_among_those_tried() -> None:
    assert len(Run().tries(SENT, domain="b.example").tries(FULL, times=2).tries(DEAD, times=3).believed) == 3


@pytest.mark.parametrize(
    ("days", "is_accepting", "believed"), [(2, True, False), (3, True, True), (3, False, False), (30, False, False)]
)
def test_refusal_alone_is_believed_after_three_days_of_a_relay_that_works(
    days: int, *, is_accepting: bool, believed: bool
) -> None:
    acceptance = Run().tries(DEAD).acceptance
    before = {"1": RefusedBefore(days=days, is_accepting=is_accepting)}
    assert bool(acceptance.believed(before)) == believed


def test_person_accepted_at_last_is_not_refused() -> None:
    """Put off in one pass, accepted in the next."""
    run = Run().tries(FULL)
    run.count = 0
    run.tries(SENT)
    assert run.acceptance.trouble is None
    assert run.acceptance.accepted == 1


def test_run_stops_when_nothing_gets_through() -> None:
    run = Run().over_domains(POLICY, IN_A_ROW - 1)
    assert run.acceptance.stopped_by is None
    assert str(run.over_domains(POLICY, 1).acceptance.stopped_by) == (
        "The relay relay answered 550 5.7.1 listed at RCPT TO; fix what its reply names (sender, login, SPF, DKIM or "
        "reputation). None of the last 20 messages was accepted."
    )


@pytest.mark.parametrize("outcome", [DEAD, FULL, LOST, NO_ANSWER, BUSY])
def test_run_stops_for_whatever_reason_nothing_gets_through(outcome: Outcome) -> None:
    assert Run().over_domains(outcome, IN_A_ROW).acceptance.stopped_by is not None


def test_one_domain_in_trouble_stops_nothing() -> None:
    """Where there are others to be tried."""
    run = Run()
    for number in range(3):
        run.acceptance.expect(f"d{number}.example")
    assert run.tries(DEAD, domain="d0.example", times=500).acceptance.stopped_by is None
    assert run.tries(DEAD, domain="d1.example").tries(DEAD, domain="d2.example").acceptance.stopped_by is not None


def test_one_domain_in_trouble_stops_where_there_is_no_other() -> None:
    assert Run().tries(DEAD, times=IN_A_ROW).acceptance.stopped_by is not None


def test_where_few_are_accepted_more_in_a_row_are_needed() -> None:
    """Nine of ten dead: 20 in a row come by chance."""
    run = Run()
    for _ in range(10):
        run.over_domains(DEAD, 9).tries(SENT)
    assert run.over_domains(DEAD, 100).acceptance.stopped_by is None
    assert run.over_domains(DEAD, 200).acceptance.stopped_by is not None


def test_messages_under_way_when_trouble_began_are_one_moments() -> None:
    """A relay that took 30 and then asks for less, with 64 connections, has not stopped working."""
    run = Run().over_domains(SENT, 30)
    begun_in = run.acceptance.begin()
    for number in range(64):
        record = Record(notice_id=f"under way {number}", outcome=BUSY, at=NOW, address_hash=b"")
        run.acceptance.keep(record, BUSY, domain=f"d{number % 3}.example", begun_in=begun_in)
    assert run.acceptance.stopped_by is None
    assert run.over_domains(BUSY, IN_A_ROW).acceptance.stopped_by is not None


def test_messages_that_only_came_too_fast_stop_nothing() -> None:
    run = Run().over_domains(SENT, 3)
    for _ in range(100):
        run.tries(BUSY, is_excused=True)
    assert run.acceptance.stopped_by is None


def test_notices_tried_again_count_once() -> None:
    """A few that are put off in each pass stop nothing, when all others were sent."""
    run = Run().over_domains(SENT, 30)
    for _ in range(10):
        run.count = 30
        run.over_domains(POLICY, 5)
    assert run.acceptance.stopped_by is None


def test_address_that_the_relay_cannot_take_is_no_evidence() -> None:
    run = Run().tries(UNREACHABLE, times=50)
    assert (run.acceptance.stopped_by, run.acceptance.trouble, run.acceptance.refused) == (None, None, [])


@pytest.mark.parametrize(
    ("outcomes", "fails"),
    [
        ([POLICY], True),
        ([LOST], True),
        ([SENT, POLICY], False),
        ([SENT, POLICY, POLICY], True),
        ([POLICY, POLICY, SENT], False),
        ([SENT, FULL, FULL, FULL], False),
        ([FULL], False),
        ([DEAD], False),
        ([DEAD, DEAD], False),
        ([DEAD, DEAD, DEAD], True),
        ([NO_ANSWER, NO_ANSWER], False),
        ([SENT, DEAD, DEAD, DEAD], False),
    ],
)
def test_tier_fails_by_what_is_not_its_recipients_trouble_alone(outcomes: list[Outcome], *, fails: bool) -> None:
    run = Run()
    for outcome in outcomes:
        run.tries(outcome)
    assert (run.acceptance.trouble is not None) == fails


@pytest.mark.parametrize(
    ("code", "reply", "enhanced", "of_one", "less"),
    [
        (450, "mailbox busy", None, True, False),
        (451, "local error", None, False, True),
        (452, "4.2.2 full", "4.2.2", True, False),
        (451, "4.7.1 greylisted, come back", "4.7.1", True, False),
        (451, "4.7.500 Server busy", "4.7.500", False, True),
        (454, "Throttling failure", None, False, True),
        (421, "4.7.0 too much", "4.7.0", False, True),
        (550, "5.7.1 listed", "5.7.1", False, False),
        (550, "5.1.8 bad sender", "5.1.8", False, False),
        (None, "connection lost", None, False, False),
    ],
)
def test_what_an_answer_is_about(
    code: int | None, reply: str, enhanced: str | None, *, of_one: bool, less: bool
) -> None:
    outcome = Outcome(state=State.DEFERRED, stage=Stage.RCPT, code=code, enhanced=enhanced, reply=reply)
    assert (is_of_one_mailbox(outcome), asks_for_less(outcome)) == (of_one, less)
