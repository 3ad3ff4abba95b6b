"""The policy against its reference, in random worlds crowded around the boundaries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from support import reference_policy as reference
from support.policy import (
    DAY,
    EXPIRED,
    GRACE,
    MICROSECOND,
    NEAR,
    NOW,
    SECOND,
    decisions,
    history_frame,
    reasons,
    token_frame,
)
from support.reference_policy import Decision, Known, Token

from token_pipelines.policy import Policy, no_history
from token_pipelines.tiers import After, Before, Remaining, Tier


@dataclass(frozen=True, kw_only=True)
class World:
    policy: Policy
    now: datetime
    reach: datetime
    told_before: datetime | None
    tokens: tuple[Token, ...]
    history: tuple[Known, ...]


SHARES = st.sampled_from([Fraction(1, 10), Fraction(1, 3000), Fraction(9999, 10_000), Fraction(1, 8)])
DURATIONS = st.sampled_from([DAY, 2 * DAY, 7 * DAY, 7 * DAY + SECOND, 30 * DAY, 30 * DAY - MICROSECOND])
JITTER = st.sampled_from([*NEAR, timedelta(hours=1), -timedelta(hours=1), DAY, -DAY, 40 * DAY])


@st.composite
def ladders(draw: st.DrawFn) -> tuple[Tier, ...]:
    befores = draw(st.lists(DURATIONS, max_size=4, unique=True))
    afters = draw(st.lists(st.one_of(st.just(timedelta()), DURATIONS), max_size=3, unique=True))
    shares = draw(st.lists(st.tuples(DURATIONS, SHARES), max_size=3, unique=True))
    tiers: list[Tier] = [Before(name=f"before{i}", before=before) for i, before in enumerate(befores)]
    tiers += [
        Remaining(name=f"share{i}", remaining=share, at_most=at_most) for i, (at_most, share) in enumerate(shares)
    ]
    tiers += [After(name=f"after{i}", after=after, within=draw(DURATIONS)) for i, after in enumerate(afters)]
    return tuple(sorted(tiers, key=lambda tier: tier.sort_key)) or (EXPIRED,)


def _instant(draw: st.DrawFn, pivots: Sequence[datetime]) -> datetime:
    return draw(st.sampled_from(pivots)) + draw(JITTER)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    grace = draw(st.sampled_from([timedelta(), GRACE, MICROSECOND]))
    tiers = draw(ladders())
    now = NOW + draw(JITTER)
    reach = now + draw(st.sampled_from([MICROSECOND, SECOND, GRACE, DAY + grace, 2 * DAY]))
    ends = [now, reach]
    for tier in tiers:
        ends += [
            now + tier.longest_lead,
            reach + tier.longest_lead,
            now + tier.longest_lead - grace,
            now - tier.span - grace,
        ]
    lives = [tier.before for tier in tiers if isinstance(tier, Before)] or [DAY]
    for tier in tiers:
        if isinstance(tier, Remaining):  # where the share is a day, where it is at_most, and between the two
            over, under = tier.remaining.as_integer_ratio()
            lives += [DAY * under / over, tier.longest_lead * under / over, tier.longest_lead * under / over / 2]
            ends += [reach + tier.longest_lead / 2, reach + DAY]
    tokens = []
    for number in range(draw(st.integers(1, 6))):
        expires_at = _instant(draw, ends)
        begins = [expires_at - tier.longest_lead for tier in tiers]
        tokens.append(
            Token(
                token_id=str(number // 2),
                recipient_id=f"{'ab'[number % 2]}{draw(st.integers(0, 1))}",
                created_at=expires_at - draw(st.sampled_from(lives)) - draw(JITTER),
                expires_at=expires_at,
                has_address=draw(st.sampled_from([True, True, True, False])),
                email_verified=draw(st.sampled_from([True, True, True, False])),
                revoked=draw(st.sampled_from([False, False, False, True])),
                muted=draw(st.sampled_from([False, False, False, True])),
                replaced_at=_instant(draw, [now]) if draw(st.integers(0, 3)) == 0 else None,
                last_notified_at=_instant(draw, [now, *begins]) if draw(st.integers(0, 2)) == 0 else None,
            )
        )
    return World(
        policy=Policy(tiers=tiers, grace=grace, only_recipients=draw(st.sampled_from([(), (), ("a0", "b1")]))),
        now=now,
        reach=reach,
        told_before=_instant(draw, [token.expires_at - tier.longest_lead for token in tokens for tier in tiers])
        if draw(st.integers(0, 4)) == 0
        else None,
        tokens=tuple(tokens),
        history=draw(histories(tokens, tiers)),
    )


@st.composite
def histories(draw: st.DrawFn, tokens: Sequence[Token], tiers: Sequence[Tier]) -> tuple[Known, ...]:
    known: dict[tuple[str, str, datetime], Known] = {}
    for token in draw(st.lists(st.sampled_from(tokens), max_size=4)):
        expires_at = token.expires_at + draw(st.sampled_from([timedelta(), timedelta(), MICROSECOND]))
        begins = [token.expires_at - tier.longest_lead for tier in tiers]
        entry = Known(
            token_id=token.token_id,
            recipient_id=draw(st.sampled_from([token.recipient_id, token.recipient_id, "c"])),
            expires_at=expires_at,
            told=_instant(draw, begins) if draw(st.booleans()) else None,
            refused=_instant(draw, begins) if draw(st.booleans()) else None,
            sent=draw(st.booleans()),
        )
        known[entry.token_id, entry.recipient_id, entry.expires_at] = entry
    return tuple(known.values())


@given(worlds())
def test_vectorised_policy_agrees_with_the_reference(world: World) -> None:
    decided = world.policy.decide(
        token_frame(world.tokens),
        history_frame(world.history),
        now=world.now,
        reach=world.reach,
        told_before=world.told_before,
    )
    assert decisions(decided) == [_by_reference(world, token) for token in world.tokens]


@given(worlds())
def test_blocking_reason_agrees_with_the_reference_and_with_the_decision(world: World) -> None:
    """Of a token that has reached a tier both name the same, unless it was told or refused before."""
    tokens = token_frame(world.tokens)
    blocking_reason = reasons(world.policy.blocking_reason(tokens, now=world.now))
    only = world.policy.only_recipients
    assert blocking_reason == [
        reference.blocking_reason(token, now=world.now, only_recipients=only) for token in world.tokens
    ]
    unmarked = tokens.assign(last_notified_at=pd.Series(pd.NaT, index=tokens.index, dtype=tokens.dtypes["created_at"]))
    decided = decisions(world.policy.decide(unmarked, no_history(), now=world.now, reach=world.reach))
    reached = [place for place, decision in enumerate(decided) if decision.tier is not None]
    assert [decided[place].reason for place in reached] == [blocking_reason[place] for place in reached]


@given(worlds())
def test_every_token_gets_a_tier_or_a_reason(world: World) -> None:
    decided = world.policy.decide(token_frame(world.tokens), no_history(), now=world.now, reach=world.reach)
    assert (decided["tier"].notna() | decided["reason"].notna()).all()
    assert (decided["tier"].notna() == decided["threshold"].notna()).all()


@given(worlds())
def test_window_contains_every_token_that_can_be_due(world: World) -> None:
    window = world.policy.window(now=world.now, reach=world.reach)
    for token in world.tokens:
        if _by_reference(world, token).tier is not None:
            assert window.expires_after <= token.expires_at < window.expires_before


@given(worlds())
def test_after_telling_everyone_nothing_is_due(world: World) -> None:
    """What makes a second run send nothing, at the same instant or a little later, before the next threshold."""
    tokens = token_frame(world.tokens)
    first = world.policy.decide(tokens, no_history(), now=world.now, reach=world.reach)
    history = [
        Known(
            token_id=token.token_id,
            recipient_id=token.recipient_id,
            expires_at=token.expires_at,
            told=decision.threshold,
            sent=True,
        )
        for token, decision in zip(world.tokens, decisions(first), strict=True)
        if decision.reason is None
    ]
    unmarked = tokens.assign(last_notified_at=pd.Series(pd.NaT, index=tokens.index, dtype=tokens.dtypes["created_at"]))
    again = world.policy.decide(unmarked, history_frame(history), now=world.now, reach=world.reach)
    due_again = again["reason"].isna() & first["reason"].isna()
    assert not due_again.any()


def _by_reference(world: World, token: Token) -> Decision:
    return reference.decide(
        token,
        world.history,
        tiers=world.policy.tiers,
        grace=world.policy.grace,
        now=world.now,
        reach=world.reach,
        told_before=world.told_before,
        only_recipients=world.policy.only_recipients,
    )
