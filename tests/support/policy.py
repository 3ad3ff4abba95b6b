"""The policy on single tokens, and as frames."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pandas as pd

from support import reference_policy as reference
from support.reference_policy import Decision, Known, Token
from token_pipelines.model import Reason
from token_pipelines.policy import HISTORY_COLUMNS, Policy
from token_pipelines.tiers import After, Before
from token_pipelines.token_facts import TOKEN_COLUMNS

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
GRACE = timedelta(hours=2)
DAY = timedelta(days=1)
REACH = NOW + DAY + GRACE
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
NEAR = (timedelta(), SECOND, -SECOND, MICROSECOND, -MICROSECOND)

EXPIRED = After(name="expired", after=timedelta(), within=3 * DAY)
LADDER = (
    EXPIRED,
    Before(name="day", before=DAY),
    Before(name="week", before=7 * DAY),
    Before(name="month", before=30 * DAY),
)
POLICY = Policy(tiers=LADDER, grace=GRACE)
LONG_LIFE = 365 * DAY


def token_frame(tokens: Sequence[Token]) -> pd.DataFrame:
    columns = {name: [getattr(token, name) for token in tokens] for name in TOKEN_COLUMNS}
    return pd.DataFrame({name: pd.Series(columns[name], dtype=dtype) for name, dtype in TOKEN_COLUMNS.items()})


def history_frame(history: Sequence[Known]) -> pd.DataFrame:
    columns = {name: [getattr(entry, name) for entry in history] for name in HISTORY_COLUMNS}
    return pd.DataFrame({name: pd.Series(columns[name], dtype=dtype) for name, dtype in HISTORY_COLUMNS.items()})


def decisions(decided: pd.DataFrame) -> list[Decision]:
    columns = (decided[name].astype("object").tolist() for name in ("tier", "threshold", "reason"))
    return [
        Decision(
            tier=None if pd.isna(tier) else tier,
            threshold=None if pd.isna(threshold) else threshold.to_pydatetime(),
            reason=None if pd.isna(reason) else Reason(reason),
        )
        for tier, threshold, reason in zip(*columns, strict=True)
    ]


def decide(token: Token, *history: Known, policy: Policy = POLICY, told_before: datetime | None = None) -> Decision:
    """What the policy says of one token at NOW; the reference must say the same."""
    (decision,) = decisions(
        policy.decide(token_frame([token]), history_frame(history), now=NOW, reach=REACH, told_before=told_before)
    )
    assert decision == reference.decide(
        token,
        history,
        tiers=policy.tiers,
        grace=policy.grace,
        now=NOW,
        reach=REACH,
        told_before=told_before,
        only_recipients=policy.only_recipients,
    )
    return decision


def expiring(expires_at: datetime, lifetime: timedelta = LONG_LIFE) -> Token:
    return Token(token_id="1", recipient_id="7", created_at=expires_at - lifetime, expires_at=expires_at)


def due(tier: str, threshold: datetime) -> Decision:
    return Decision(tier=tier, threshold=threshold)


WEEK_LEFT = NOW + 6 * DAY  # in tier week since a day
WEEK_BEGAN = NOW - DAY


def reasons(named: pd.Series) -> list[Reason | None]:
    return [None if pd.isna(reason) else Reason(reason) for reason in named]
