"""The rollout: who is in it, at each percentage."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from support.policy import NOW, POLICY, REACH, WEEK_LEFT, expiring, token_frame

from token_pipelines.model import Reason
from token_pipelines.policy import Policy, no_history


def in_rollout(recipients: Sequence[str], policy: Policy) -> set[str]:
    tokens = [replace(expiring(WEEK_LEFT), recipient_id=recipient) for recipient in recipients]
    decided = policy.decide(token_frame(tokens), no_history(), now=NOW, reach=REACH)
    assert set(decided["reason"].dropna()) <= {Reason.NOT_IN_ROLLOUT}
    return set(decided.loc[decided["reason"].isna(), "recipient_id"])


PEOPLE = [str(number) for number in range(2000)]
ROLLED_OUT = {"0", "32", "33", "37", "38"}


def test_rollout_only_grows_with_its_percent() -> None:
    percents = (0, 0.5, 1, 10, 50, 99, 99.99, 100)
    told_at = [in_rollout(PEOPLE, replace(POLICY, rollout_percent=percent)) for percent in percents]
    assert all(fewer <= more for fewer, more in pairwise(told_at))
    assert (told_at[0], told_at[-1]) == (set(), set(PEOPLE))
    assert [round(len(people) / len(PEOPLE) * 100) for people in told_at[3:5]] == [
        pytest.approx(10, abs=2),
        pytest.approx(50, abs=3),
    ]


def test_rollout_chooses_the_same_people_every_day_on_every_machine() -> None:
    """Pinned: another hash after an upgrade would write to other people halfway through a rollout."""
    assert in_rollout(PEOPLE[:40], replace(POLICY, rollout_percent=10)) == ROLLED_OUT
    assert in_rollout(PEOPLE[39::-1], replace(POLICY, rollout_percent=10)) == ROLLED_OUT


def test_rollout_of_nothing_reaches_nobody() -> None:
    """12959 has the lowest place of all in the rollout."""
    assert in_rollout(["12959"], replace(POLICY, rollout_percent=0)) == set()
    assert in_rollout(["12959"], replace(POLICY, rollout_percent=0.01)) == {"12959"}


def test_rollout_to_named_recipients_narrows_the_percent() -> None:
    assert in_rollout(PEOPLE, replace(POLICY, only_recipients=["3", "5", "no one"])) == {"3", "5"}
    assert in_rollout(PEOPLE, replace(POLICY, only_recipients=["3", "5"], rollout_percent=0)) == set()
