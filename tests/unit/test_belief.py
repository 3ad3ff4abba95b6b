"""Which reports are believed: the pure rule, and the sentence about those that are not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from token_pipelines.feedback.bounces.belief import DAYS, explain_disbelief, is_believed
from token_pipelines.ledger.judging import Evidence

ONE = Evidence(digest=b"1", believed=None, run_id="run-1", returned=1, delivered=0, days=1, is_delivering=False)
EVIDENCE = st.builds(
    Evidence,
    digest=st.binary(min_size=16, max_size=16),
    believed=st.sampled_from([None, True, False]),
    run_id=st.just("run-1"),
    returned=st.integers(1, 1000),
    delivered=st.integers(0, 1000),
    days=st.integers(1, 6),
    is_delivering=st.booleans(),
)


@pytest.mark.parametrize(
    ("returned", "delivered", "days", "is_delivering", "believed"),
    [
        (1, 0, 1, True, False),
        (1, 1, 1, False, True),
        (300, 0, 1, True, False),
        (300, 299, 1, True, False),
        (300, 300, 1, True, True),
        (3, 900, 1, True, True),
        (1, 0, DAYS, True, True),
        (1, 0, DAYS - 1, True, False),
        (1, 0, DAYS + 30, False, False),
    ],
)
def test_is_believed(returned: int, delivered: int, days: int, *, is_delivering: bool, believed: bool) -> None:
    evidence = replace(ONE, returned=returned, delivered=delivered, days=days, is_delivering=is_delivering)
    assert is_believed(evidence) == believed


@given(EVIDENCE, st.integers(0, 1000))
def test_more_that_arrived_never_makes_a_report_less_believable(evidence: Evidence, more: int) -> None:
    assert is_believed(replace(evidence, delivered=evidence.delivered + more)) >= is_believed(evidence)


@given(EVIDENCE, st.integers(0, 1000))
def test_more_that_came_back_never_makes_a_report_more_believable(evidence: Evidence, more: int) -> None:
    assert is_believed(replace(evidence, returned=evidence.returned + more)) <= is_believed(evidence)


@given(EVIDENCE)
def test_verdict_does_not_depend_on_the_one_before(evidence: Evidence) -> None:
    """So it does not matter in how many readings the reports came."""
    verdicts = {is_believed(replace(evidence, believed=before)) for before in (None, True, False)}
    assert len(verdicts) == 1


@given(EVIDENCE)
def test_nothing_is_believed_while_nothing_arrives(evidence: Evidence) -> None:
    assert not is_believed(replace(evidence, delivered=0, is_delivering=False))


def test_explain_disbelief_names_the_worst_run() -> None:
    reports = [replace(ONE, returned=2), replace(ONE, run_id="run-2", returned=3000, delivered=12)]
    assert explain_disbelief(reports, taken_back=0).startswith(
        "Not believed: 2 failures, because most of what the same run sent came back (3,000 of the 3,012 emails of run "
        "run-2). "
    )
