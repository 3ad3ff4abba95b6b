"""What the UI says of the asset ``expiring_tokens``: its columns, and when it is out of date."""

from datetime import timedelta
from typing import Final

import dagster as dg

from token_pipelines.model import Tier
from token_pipelines.token_facts import FACTS, INSTANT, TOKEN_COLUMNS, Kind

LONGEST_DAY: Final = timedelta(hours=25)
"""The day on which the clocks are put back: the longest time between two runs that are on time."""

UNITS: Final = {
    "day": timedelta(days=1),
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
    "second": timedelta(seconds=1),
}

_DECIDED: Final = (
    ("tier", "category", "The tier that the token has reached."),
    ("threshold", INSTANT, "When that tier began for this token."),
    ("reason", "category", "Why it leads to no email; empty where a notice is due."),
)
"""What the policy adds to the token facts."""

COLUMN_SCHEMA: Final = dg.TableSchema(
    columns=[
        *(
            dg.TableColumn(
                fact.column,
                type=TOKEN_COLUMNS[fact.column],
                description=fact.meaning,
                constraints=dg.TableColumnConstraints(nullable=fact.kind is Kind.INSTANT and not fact.never_null),
            )
            for fact in FACTS
            if fact.decides
        ),
        *(
            dg.TableColumn(name, type=dtype, description=meaning, constraints=dg.TableColumnConstraints(nullable=True))
            for name, dtype, meaning in _DECIDED
        ),
    ]
)
"""The columns of ``expiring_tokens``: one row per token and recipient."""


def freshness(grace: timedelta) -> dg.FreshnessPolicy:
    """The asset is out of date when a day's run is later than its grace allows."""
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
