"""What the UI says of the assets: a tier in words, the columns of ``expiring_tokens``, when it is out of date."""

from datetime import timedelta
from typing import Final

import dagster as dg

from token_pipelines.model import Tier
from token_pipelines.policy import INSTANT, TOKEN_COLUMNS

LONGEST_DAY: Final = timedelta(hours=25)
"""The day on which the clocks are put back: no two runs on time are further apart."""

UNITS: Final = {
    "day": timedelta(days=1),
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
    "second": timedelta(seconds=1),
}

MEANINGS: Final = {
    "token_id": "The token's id in the registry; its secret is never read.",
    "recipient_id": "Whom to write to, by id; the address is read just before sending and kept nowhere.",
    "created_at": "When the token was issued.",
    "expires_at": "When the token dies.",
    "has_address": "The recipient has an address, and it is well formed.",
    "email_verified": "The recipient has confirmed the address.",
    "revoked": "The token was revoked.",
    "muted": "The recipient wants no such mail.",
    "replaced_at": "When the owner put another token in its place.",
    "last_notified_at": "When an older job wrote about this token.",
    "tier": "The tier that the token has reached.",
    "threshold": "When that tier began for this token.",
    "reason": "Why it leads to no email; empty where a notice is due.",
}
OPTIONAL: Final = {"replaced_at", "last_notified_at", "tier", "threshold", "reason"}

COLUMN_SCHEMA: Final = dg.TableSchema(
    columns=[
        dg.TableColumn(
            name,
            type=dtype,
            description=MEANINGS.get(name),
            constraints=dg.TableColumnConstraints(nullable=name in OPTIONAL),
        )
        for name, dtype in {**TOKEN_COLUMNS, "tier": "category", "threshold": INSTANT, "reason": "category"}.items()
    ]
)
"""The columns of ``expiring_tokens``: one row per token and recipient."""


def freshness(grace: timedelta) -> dg.FreshnessPolicy:
    """The asset is out of date when a day's run is later than the grace that it has."""
    return dg.FreshnessPolicy.time_window(fail_window=LONGEST_DAY + grace)


def describe(tier: Tier) -> str:
    """Whom this tier's emails go to, in a sentence."""
    if tier.before is not None:
        return f"Emails to owners of tokens that expire within {span_in_words(tier.before)}."
    if tier.remaining is not None and tier.at_most is not None:
        share = f"{float(100 * tier.remaining):g} %"
        at_most = span_in_words(tier.at_most)
        return f"Emails to owners of tokens that have {share} of their lifetime left, {at_most} at most."
    since = f"expired at least {span_in_words(tier.after)} ago" if tier.after else "have expired"
    until = (tier.after or timedelta()) + (tier.within or timedelta())
    return f"Emails to owners of tokens that {since}, sent until {span_in_words(until)} after the expiry."


def span_in_words(span: timedelta) -> str:
    """``7 days``, ``1 day and 12 hours``: exact, as configured."""
    words = []
    for unit, length in UNITS.items():
        count, span = divmod(span, length)
        if count:
            words.append(f"{count} {unit}{'' if count == 1 else 's'}")
    return " and ".join(words) or "0 days"
