"""What the UI shows about the assets: the columns of ``expiring_tokens``, and when an asset is out of date."""

from datetime import timedelta
from typing import Final

import dagster as dg

from token_pipelines.token_facts import FACTS, INSTANT, TOKEN_COLUMNS, Kind

LONGEST_DAY: Final = timedelta(hours=25)
"""The longest time between two runs that are on time: the clocks are put back on that day."""

_DECIDED: Final = (
    ("tier", "category", "The tier that the token has reached."),
    ("threshold", INSTANT, "When that tier began for this token."),
    ("reason", "category", "Why it leads to no email; empty where a notice is due."),
)
"""The columns that the policy adds to the token facts."""

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
