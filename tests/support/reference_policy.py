"""The policy once more, for one token at a time, in plain Python: what docs/architecture.md says, word by word.

Slow and obvious on purpose. A property test compares `token_pipelines.policy` with it; they share values, but no code.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import floor

from token_pipelines.model import Reason
from token_pipelines.tiers import After, Before, Remaining, Tier


@dataclass(frozen=True, kw_only=True)
class Token:
    """A row of the source, as the policy sees it."""

    token_id: str
    recipient_id: str
    created_at: datetime
    expires_at: datetime
    unreadable: str = ""
    has_address: bool = True
    email_verified: bool = True
    revoked: bool = False
    muted: bool = False
    replaced_at: datetime | None = None
    last_notified_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the ledger knows of a token, its recipient and an expiry."""

    token_id: str
    recipient_id: str
    expires_at: datetime
    told: datetime | None = None
    refused: datetime | None = None
    sent: bool = False


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A tier and when it began, where the token has reached one; a reason, where it leads to no email."""

    tier: str | None = None
    threshold: datetime | None = None
    reason: Reason | None = None


def decide(
    token: Token,
    history: Sequence[Known],
    *,
    tiers: Sequence[Tier],
    grace: timedelta,
    now: datetime,
    reach: datetime,
    told_before: datetime | None = None,
    only_recipients: Collection[str] = (),
) -> Decision:
    """Give one token its tier, or the reason why there is no email."""
    begun = [tier for tier in tiers if _has_begun(tier, token, grace=grace, now=now, reach=reach)]
    long_enough = [tier for tier in begun if _lives_long_enough(tier, token, tiers)]
    if not long_enough:
        return Decision(reason=Reason.LIFETIME_TOO_SHORT if begun else Reason.OUTSIDE_TIERS)
    tier = max(long_enough, key=lambda tier: threshold(tier, token))
    return Decision(
        tier=tier.name,
        threshold=threshold(tier, token),
        reason=_why_not(token, history, threshold(tier, token), now, told_before, only_recipients),
    )


def threshold(tier: Tier, token: Token) -> datetime:
    """The instant at which a tier begins for a token."""
    if isinstance(tier, After):
        return token.expires_at + tier.after
    return token.expires_at - _lead(tier, token)


def _lead(tier: Tier, token: Token) -> timedelta:
    if isinstance(tier, Before):
        return tier.before
    assert isinstance(tier, Remaining)
    microseconds = (token.expires_at - token.created_at) // timedelta(microseconds=1)
    return min(timedelta(microseconds=floor(microseconds * tier.remaining)), tier.at_most)


def _has_begun(tier: Tier, token: Token, *, grace: timedelta, now: datetime, reach: datetime) -> bool:
    begins = threshold(tier, token)
    if not isinstance(tier, After):
        return begins < reach and token.expires_at > now
    return begins <= now <= begins + tier.within + grace


def _lives_long_enough(tier: Tier, token: Token, tiers: Sequence[Tier]) -> bool:
    """A token issued for 5 days gets no 7-day notice, and one that lives for an hour gets none when it has expired."""
    if isinstance(tier, Before):
        return token.expires_at - token.created_at > tier.before
    if isinstance(tier, Remaining):
        return _lead(tier, token) >= timedelta(days=1)
    others = [other for other in tiers if not isinstance(other, After)]
    return not others or any(_lives_long_enough(other, token, tiers) for other in others)


def blocking_reason(  # noqa: PLR0911 -- one line a reason, in their order
    token: Token, *, now: datetime, only_recipients: Collection[str] = ()
) -> Reason | None:
    """The reason that forbids an email at every tier alike: the token's own, then the recipient's."""
    if token.revoked:
        return Reason.REVOKED
    if token.replaced_at is not None and token.replaced_at <= now:
        return Reason.REPLACED
    if token.muted:
        return Reason.MUTED
    if not token.has_address:
        return Reason.NO_ADDRESS
    if not token.email_verified:
        return Reason.UNVERIFIED_ADDRESS
    if only_recipients and token.recipient_id not in only_recipients:
        return Reason.NOT_IN_ROLLOUT
    return None


def _why_not(  # noqa: C901, PLR0911 -- one line a reason, in their order
    token: Token,
    history: Sequence[Known],
    begins: datetime,
    now: datetime,
    told_before: datetime | None,
    only_recipients: Collection[str],
) -> Reason | None:
    key = (token.token_id, token.recipient_id, token.expires_at)
    known = [entry for entry in history if (entry.token_id, entry.recipient_id, entry.expires_at) == key]
    we_have_sent = any(entry.sent for entry in history if entry.token_id == token.token_id)
    told = [entry.told for entry in known]
    if not we_have_sent:
        told.append(token.last_notified_at)
    if token.revoked:
        return Reason.REVOKED
    if token.replaced_at is not None and token.replaced_at <= now:
        return Reason.REPLACED
    if any(instant is not None and begins <= instant for instant in told):
        return Reason.ALREADY_NOTIFIED
    if told_before is not None and begins < told_before:
        return Reason.ALREADY_NOTIFIED
    if any(entry.refused is not None and begins <= entry.refused for entry in known):
        return Reason.REFUSED_ADDRESS
    if token.muted:
        return Reason.MUTED
    if not token.has_address:
        return Reason.NO_ADDRESS
    if not token.email_verified:
        return Reason.UNVERIFIED_ADDRESS
    if only_recipients and token.recipient_id not in only_recipients:
        return Reason.NOT_IN_ROLLOUT
    return None
