"""Which tokens are due: one second on either side of each boundary, and a scalar reference over random worlds."""

from dataclasses import replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import pandas as pd
import pytest
from support import reference_policy as reference
from support.policy import (
    DAY,
    EXPIRED,
    GRACE,
    LADDER,
    MICROSECOND,
    NOW,
    POLICY,
    REACH,
    SECOND,
    WEEK_BEGAN,
    WEEK_LEFT,
    decide,
    decisions,
    due,
    expiring,
    reasons,
    token_frame,
)
from support.reference_policy import Decision, Known, Token

from token_pipelines.model import Reason
from token_pipelines.policy import Policy, no_history, urgency
from token_pipelines.tiers import After, Before, Remaining, Tier
from token_pipelines.token_facts import TOKEN_COLUMNS

OUTSIDE = Decision(reason=Reason.OUTSIDE_TIERS)
TOO_SHORT = Decision(reason=Reason.LIFETIME_TOO_SHORT)


# Boundaries. The unit is one second, and one microsecond where instants are stored to it.


@pytest.mark.parametrize("step", [SECOND, MICROSECOND])
def test_before_tier_begins_just_before_reach(step: timedelta) -> None:
    expires_at = REACH + 7 * DAY - step
    assert decide(expiring(expires_at)) == due("week", expires_at - 7 * DAY)


@pytest.mark.parametrize("step", [timedelta(), MICROSECOND, SECOND])
def test_before_tier_has_not_begun_when_its_threshold_is_reach(step: timedelta) -> None:
    expires_at = REACH + 7 * DAY + step
    assert decide(expiring(expires_at)) == due("month", expires_at - 30 * DAY)


@pytest.mark.parametrize("step", [timedelta(), MICROSECOND, SECOND])
def test_longest_tier_has_not_begun_when_its_threshold_is_reach(step: timedelta) -> None:
    assert decide(expiring(REACH + 30 * DAY + step)) == OUTSIDE


@pytest.mark.parametrize("step", [MICROSECOND, SECOND])
def test_before_tier_lasts_while_the_token_lives(step: timedelta) -> None:
    assert decide(expiring(NOW + step)) == due("day", NOW + step - DAY)


@pytest.mark.parametrize("step", [timedelta(), MICROSECOND, SECOND])
def test_after_tier_begins_with_the_expiry(step: timedelta) -> None:
    assert decide(expiring(NOW - step)) == due("expired", NOW - step)


@pytest.mark.parametrize("step", [timedelta(), MICROSECOND, SECOND])
def test_before_tier_alone_is_over_with_the_expiry(step: timedelta) -> None:
    policy = Policy(tiers=LADDER[1:], grace=GRACE)
    assert decide(expiring(NOW - step), policy=policy) == OUTSIDE


@pytest.mark.parametrize(
    ("step", "decision"),
    [
        (-SECOND, due("expired", NOW - 3 * DAY - GRACE + SECOND)),
        (timedelta(), due("expired", NOW - 3 * DAY - GRACE)),
        (MICROSECOND, OUTSIDE),
        (SECOND, OUTSIDE),
    ],
)
def test_after_tier_ends_with_within_and_grace(step: timedelta, decision: Decision) -> None:
    assert decide(expiring(NOW - 3 * DAY - GRACE - step)) == decision


@pytest.mark.parametrize(("step", "tier"), [(SECOND, "late"), (MICROSECOND, "late"), (timedelta(), "late"),
                                            (-MICROSECOND, "expired"), (-SECOND, "expired")])  # fmt: skip
def test_after_tier_begins_after_its_delay(step: timedelta, tier: str) -> None:
    late = After(name="late", after=2 * DAY, within=DAY)
    expires_at = NOW - 2 * DAY - step
    threshold = {"late": expires_at + 2 * DAY, "expired": expires_at}[tier]
    assert decide(expiring(expires_at), policy=Policy(tiers=(late, EXPIRED), grace=GRACE)) == due(tier, threshold)


@pytest.mark.parametrize(
    ("lifetime", "decision"),
    [
        (7 * DAY + MICROSECOND, due("week", NOW - 4 * DAY)),
        (7 * DAY + SECOND, due("week", NOW - 4 * DAY)),
        (7 * DAY, TOO_SHORT),
        (7 * DAY - SECOND, TOO_SHORT),
        (5 * DAY, TOO_SHORT),
    ],
)
def test_lifetime_must_be_longer_than_before(lifetime: timedelta, decision: Decision) -> None:
    assert decide(expiring(NOW + 3 * DAY, lifetime)) == decision


@pytest.mark.parametrize(
    ("lifetime", "decision"),
    [
        (DAY + SECOND, due("expired", NOW - DAY)),
        (DAY + MICROSECOND, due("expired", NOW - DAY)),
        (DAY, TOO_SHORT),
        (DAY - SECOND, TOO_SHORT),
    ],
)
def test_after_tier_needs_a_lifetime_longer_than_the_shortest_before(lifetime: timedelta, decision: Decision) -> None:
    assert decide(expiring(NOW - DAY, lifetime)) == decision


def test_lifetime_asks_the_tier_reached_and_not_the_first() -> None:
    assert decide(expiring(NOW + 12 * timedelta(hours=1), 5 * DAY)) == due("day", NOW - DAY / 2)


def test_lifetime_does_not_matter_where_no_tier_is_before_the_expiry() -> None:
    assert decide(expiring(NOW, SECOND), policy=Policy(tiers=(EXPIRED,), grace=GRACE)) == due("expired", NOW)


# A share of the lifetime


SOON = Remaining(name="soon", remaining=Fraction(1, 10), at_most=60 * DAY)
ALONE = Policy(tiers=(SOON,), grace=GRACE)


@pytest.mark.parametrize(("step", "begun"), [(SECOND, True), (MICROSECOND, True), (timedelta(), False),
                                             (-MICROSECOND, False), (-SECOND, False)])  # fmt: skip
def test_share_begins_just_before_reach(step: timedelta, begun: bool) -> None:  # noqa: FBT001
    token = expiring(REACH + 20 * DAY - step, 200 * DAY)
    assert decide(token, policy=ALONE) == (due("soon", token.expires_at - 20 * DAY) if begun else OUTSIDE)


@pytest.mark.parametrize(
    ("lifetime", "lead"),
    [
        (200 * DAY, 20 * DAY),
        (200 * DAY + 9 * MICROSECOND, 20 * DAY),  # rounded down: the email never comes early
        (200 * DAY + 10 * MICROSECOND, 20 * DAY + MICROSECOND),
        (200 * DAY - MICROSECOND, 20 * DAY - MICROSECOND),
        (600 * DAY - MICROSECOND, 60 * DAY - MICROSECOND),
        (600 * DAY, 60 * DAY),
        (600 * DAY + SECOND, 60 * DAY),
        (36_525 * DAY, 60 * DAY),
    ],
)
def test_share_is_of_the_tokens_own_lifetime_and_no_more_than_at_most(lifetime: timedelta, lead: timedelta) -> None:
    expires_at = REACH + lead - MICROSECOND
    assert decide(expiring(expires_at, lifetime), policy=ALONE) == due("soon", expires_at - lead)
    assert decide(expiring(REACH + lead, lifetime), policy=ALONE) == OUTSIDE


@pytest.mark.parametrize(("step", "long_enough"), [(SECOND, True), (10 * MICROSECOND, True), (timedelta(), True),
                                                   (-MICROSECOND, False), (-SECOND, False)])  # fmt: skip
def test_share_of_less_than_a_day_is_too_short(step: timedelta, long_enough: bool) -> None:  # noqa: FBT001
    token = expiring(NOW + DAY, 10 * DAY + step)
    lead = timedelta(microseconds=(10 * DAY + step) // (10 * MICROSECOND))
    assert decide(token, policy=ALONE) == (due("soon", token.expires_at - lead) if long_enough else TOO_SHORT)


def test_token_that_lives_for_an_hour_is_never_mentioned() -> None:
    policy = Policy(tiers=(EXPIRED, SOON), grace=GRACE)
    hour = timedelta(hours=1)
    assert decide(expiring(NOW + MICROSECOND, hour), policy=policy) == TOO_SHORT
    assert decide(expiring(NOW, hour), policy=policy) == TOO_SHORT


@pytest.mark.parametrize(("lifetime", "decision"), [(10 * DAY, due("expired", NOW)), (10 * DAY - SECOND, TOO_SHORT)])
def test_after_tier_needs_a_lifetime_long_enough_for_the_share(lifetime: timedelta, decision: Decision) -> None:
    assert decide(expiring(NOW, lifetime), policy=Policy(tiers=(EXPIRED, SOON), grace=GRACE)) == decision


def test_after_tier_needs_a_lifetime_long_enough_for_any_other_tier() -> None:
    policy = Policy(tiers=(EXPIRED, Before(name="week", before=7 * DAY), SOON), grace=GRACE)
    assert decide(expiring(NOW, 8 * DAY), policy=policy) == due("expired", NOW)
    assert decide(expiring(NOW, 7 * DAY), policy=policy) == TOO_SHORT
    month = Policy(tiers=(EXPIRED, Before(name="month", before=30 * DAY), SOON), grace=GRACE)
    assert decide(expiring(NOW, 20 * DAY), policy=month) == due("expired", NOW)


def test_lifetime_too_short_for_the_share_leaves_the_other_tiers() -> None:
    policy = Policy(tiers=(Before(name="day", before=DAY), SOON), grace=GRACE)
    assert decide(expiring(NOW + DAY / 2, 5 * DAY), policy=policy) == due("day", NOW - DAY / 2)


def test_of_a_share_and_a_fixed_tier_the_one_that_begins_later_is_named() -> None:
    policy = Policy(tiers=(Before(name="week", before=7 * DAY), SOON), grace=GRACE)
    short, long = expiring(NOW + 2 * DAY, 30 * DAY), expiring(NOW + 2 * DAY, 300 * DAY)
    assert decide(short, policy=policy) == due("soon", short.expires_at - 3 * DAY)
    assert decide(long, policy=policy) == due("week", long.expires_at - 7 * DAY)


@pytest.mark.parametrize(
    ("tiers", "tier"),
    [
        ((Before(name="week", before=7 * DAY), SOON), "week"),
        ((replace(SOON, at_most=7 * DAY), Before(name="week", before=7 * DAY)), "soon"),
        ((SOON, Remaining(name="tenth", remaining=Fraction(1, 10), at_most=61 * DAY)), "soon"),
    ],
)
def test_of_equal_thresholds_the_first_of_the_ladder_is_named(tiers: tuple[Tier, ...], tier: str) -> None:
    token = expiring(NOW + 2 * DAY, 70 * DAY)
    assert decide(token, policy=Policy(tiers=tiers, grace=GRACE)) == due(tier, token.expires_at - 7 * DAY)


def test_urgency_is_the_lead_and_then_the_ladder() -> None:
    policy = Policy(tiers=(Before(name="week", before=7 * DAY), SOON), grace=GRACE)
    tokens = [expiring(NOW + DAY, life) for life in (30 * DAY, 365 * DAY, 70 * DAY)]
    decided = policy.decide(
        token_frame([replace(token, token_id=str(i)) for i, token in enumerate(tokens)]),
        no_history(),
        now=NOW,
        reach=REACH,
    )
    assert decided["tier"].tolist() == ["soon", "week", "week"]
    found = urgency(decided)
    assert found[0] < found[1] == found[2]
    assert (found % 2).tolist() == [1, 0, 0]


# What was told before


def told(threshold: datetime | None) -> Known:
    return Known(token_id="1", recipient_id="7", expires_at=WEEK_LEFT, told=threshold, sent=threshold is not None)


DUE = due("week", WEEK_BEGAN)
ALREADY = replace(DUE, reason=Reason.ALREADY_NOTIFIED)


@pytest.mark.parametrize(
    ("step", "decision"),
    [(SECOND, ALREADY), (MICROSECOND, ALREADY), (timedelta(), ALREADY), (-MICROSECOND, DUE), (-SECOND, DUE)],
)
def test_told_up_to_the_threshold(step: timedelta, decision: Decision) -> None:
    assert decide(expiring(WEEK_LEFT), told(WEEK_BEGAN + step)) == decision


@pytest.mark.parametrize(
    ("step", "decision"),
    [(SECOND, ALREADY), (MICROSECOND, ALREADY), (timedelta(), ALREADY), (-MICROSECOND, DUE), (-SECOND, DUE)],
)
def test_last_notified_at_tells_what_had_begun_by_then(step: timedelta, decision: Decision) -> None:
    assert decide(replace(expiring(WEEK_LEFT), last_notified_at=WEEK_BEGAN + step)) == decision


@pytest.mark.parametrize(
    ("step", "decision"),
    [(SECOND, ALREADY), (MICROSECOND, ALREADY), (timedelta(), DUE), (-SECOND, DUE)],
)
def test_told_before_an_instant_as_an_operator_marked(step: timedelta, decision: Decision) -> None:
    assert decide(expiring(WEEK_LEFT), told_before=WEEK_BEGAN + step) == decision


@pytest.mark.parametrize(
    "other",
    [
        replace(told(NOW), token_id="2"),
        replace(told(NOW), recipient_id="8"),
        replace(told(NOW), expires_at=WEEK_LEFT + MICROSECOND),
        replace(told(NOW), expires_at=WEEK_LEFT - SECOND),
    ],
)
def test_told_of_another_token_recipient_or_expiry_is_not_told(other: Known) -> None:
    assert decide(expiring(WEEK_LEFT), other) == DUE


def test_told_at_a_more_urgent_tier_silences_the_less_urgent() -> None:
    assert decide(expiring(WEEK_LEFT), told(WEEK_LEFT - DAY)) == ALREADY


def test_last_notified_at_no_longer_counts_once_we_have_sent_for_the_token() -> None:
    token = replace(expiring(WEEK_LEFT), last_notified_at=NOW)
    assert decide(token, told(WEEK_LEFT - 30 * DAY)) == DUE
    assert decide(token, replace(told(WEEK_LEFT - 30 * DAY), recipient_id="8")) == DUE
    assert decide(token, replace(told(WEEK_LEFT - 30 * DAY), sent=False)) == ALREADY
    assert decide(token, replace(told(WEEK_LEFT - 30 * DAY), token_id="2")) == ALREADY


def test_refused_counts_for_its_threshold_and_the_next_tier_is_tried() -> None:
    refused = replace(DUE, reason=Reason.REFUSED_ADDRESS)
    assert decide(expiring(WEEK_LEFT), replace(told(None), refused=WEEK_BEGAN)) == refused
    assert decide(expiring(WEEK_LEFT), replace(told(None), refused=WEEK_BEGAN - MICROSECOND)) == DUE


@pytest.mark.parametrize(
    ("step", "reason"),
    [(SECOND, Reason.REPLACED), (timedelta(), Reason.REPLACED), (-MICROSECOND, None), (-SECOND, None)],
)
def test_replaced_counts_from_its_instant(step: timedelta, reason: Reason | None) -> None:
    assert decide(replace(expiring(WEEK_LEFT), replaced_at=NOW - step)) == replace(DUE, reason=reason)


# Which of several reasons is named


OBSTACLES: tuple[tuple[Reason, dict[str, Any]], ...] = (
    (Reason.REVOKED, {"revoked": True}),
    (Reason.REPLACED, {"replaced_at": NOW}),
    (Reason.ALREADY_NOTIFIED, {"last_notified_at": NOW}),
    (Reason.MUTED, {"muted": True}),
    (Reason.NO_ADDRESS, {"has_address": False}),
    (Reason.UNVERIFIED_ADDRESS, {"email_verified": False}),
    (Reason.NOT_IN_ROLLOUT, {}),
)


@pytest.mark.parametrize("first", range(len(OBSTACLES)), ids=[reason for reason, _ in OBSTACLES])
def test_reasons_are_named_in_their_order(first: int) -> None:
    policy = replace(POLICY, only_recipients=["8"])
    changes = {name: value for _, change in OBSTACLES[first:] for name, value in change.items()}
    assert decide(replace(expiring(WEEK_LEFT), **changes), policy=policy) == replace(DUE, reason=OBSTACLES[first][0])


def test_outside_every_tier_is_named_whatever_else_is_wrong() -> None:
    everything = {name: value for _, change in OBSTACLES for name, value in change.items()}
    assert decide(replace(expiring(NOW + 90 * DAY), **everything)) == OUTSIDE
    assert decide(replace(expiring(NOW + 3 * DAY, 5 * DAY), **everything)) == TOO_SHORT


BLOCKING = tuple((reason, change) for reason, change in OBSTACLES if reason is not Reason.ALREADY_NOTIFIED)


def blocking_reason(token: Token, policy: Policy = POLICY) -> Reason | None:
    """The reason that blocks one token at NOW, whatever its tier; the reference must say the same."""
    [reason] = reasons(policy.blocking_reason(token_frame([token]), now=NOW))
    assert reason == reference.blocking_reason(token, now=NOW, only_recipients=policy.only_recipients)
    return reason


@pytest.mark.parametrize("first", range(len(BLOCKING)), ids=[reason for reason, _ in BLOCKING])
@pytest.mark.parametrize(
    "token", [expiring(WEEK_LEFT), expiring(NOW + 90 * DAY), expiring(NOW + 3 * DAY, 5 * DAY)],
    ids=["due", "outside", "too short"],
)  # fmt: skip
def test_blocking_reason_is_named_whatever_the_tier(first: int, token: Token) -> None:
    policy = replace(POLICY, only_recipients=["8"])
    changes = {name: value for _, change in BLOCKING[first:] for name, value in change.items()}
    assert blocking_reason(replace(token, **changes), policy) == BLOCKING[first][0]


def test_what_was_told_is_no_blocking_reason() -> None:
    assert blocking_reason(replace(expiring(WEEK_LEFT), last_notified_at=NOW)) is None


# The frame


def test_decide_keeps_rows_columns_and_index() -> None:
    tokens = token_frame([expiring(WEEK_LEFT), replace(expiring(NOW + 90 * DAY), token_id="2")])
    tokens.index = pd.Index([40, 2])
    decided = POLICY.decide(tokens, no_history(), now=NOW, reach=REACH)
    pd.testing.assert_frame_equal(decided[list(tokens.columns)], tokens)
    assert list(decided.columns) == [*TOKEN_COLUMNS, "tier", "threshold", "reason"]
    assert decisions(decided) == [DUE, OUTSIDE]
    assert list(decided["tier"].cat.categories) == ["expired", "day", "week", "month"]


def test_decide_nothing() -> None:
    decided = POLICY.decide(token_frame([]), no_history(), now=NOW, reach=REACH)
    assert decisions(decided) == []
    assert list(decided.columns) == [*TOKEN_COLUMNS, "tier", "threshold", "reason"]


def test_tiers_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="most urgent first"):
        Policy(tiers=LADDER[::-1], grace=GRACE)
    with pytest.raises(ValueError, match="most urgent first"):
        Policy(tiers=(LADDER[1], Before(name="again", before=DAY)), grace=GRACE)


# The span of expiries that is read


@pytest.mark.parametrize(
    ("tiers", "after", "before"),
    [
        (LADDER, NOW - 3 * DAY - GRACE, REACH + 30 * DAY),
        (LADDER[1:], NOW, REACH + 30 * DAY),
        ((EXPIRED,), NOW - 3 * DAY - GRACE, NOW + MICROSECOND),
        ((SOON,), NOW, REACH + 60 * DAY),
        ((EXPIRED, LADDER[1], SOON), NOW - 3 * DAY - GRACE, REACH + 60 * DAY),
        ((After(name="late", after=5 * DAY, within=DAY), EXPIRED), NOW - 6 * DAY - GRACE, NOW + MICROSECOND),
    ],
)
def test_window_is_no_wider_than_the_tiers(tiers: tuple[Tier, ...], after: datetime, before: datetime) -> None:
    window = Policy(tiers=tiers, grace=GRACE).window(now=NOW, reach=REACH)
    assert (window.expires_after, window.expires_before) == (after, before)
