"""Whether what came back lies with the recipient: the rule of `delivery.acceptance`, for reports.

A relay whose resolver fails accepts everything, and returns all of it as "no such domain". So a report is believed when
at least as many emails of the same run did not come back; or when emails to the address came back on three different
days, and none arrived there in between, but one to somebody else did. Until then the notice is deferred, and nobody is
suppressed. Each reading judges again, also what was believed: the first of many reports look like a few.

The rule for refusals also asks for other domains. Here it cannot: the ledger stores no domain of what was delivered.
"""

from collections.abc import Collection
from typing import Final

from token_pipelines.ledger.judging import Evidence

DAYS: Final = 3
"""Different days on which emails to an address must come back, to be believed on their own."""


def is_believed(evidence: Evidence) -> bool:
    """Whether the report is believed."""
    return evidence.returned <= evidence.delivered or (evidence.days >= DAYS and evidence.is_delivering)


def explain_disbelief(reports: Collection[Evidence], *, taken_back: int) -> str:
    """Which reports are not believed, and why, in one line without an address.

    Args:
        reports: those that are not believed; at least one.
        taken_back: how many of them were believed before.
    """
    worst = max(reports, key=lambda report: report.returned)
    again = f" {taken_back:,} of them had been believed by an earlier reading; that is undone." if taken_back else ""
    sent = worst.returned + worst.delivered
    most = f"{worst.returned:,} of the {sent:,} emails of run {worst.run_id}"
    return (
        f"Not believed: {len(reports):,} failures, because most of what the same run sent came back ({most}). Nobody "
        "is suppressed for them, and the next run sends their notices again; look at the relay's log, and fix what it "
        f"says.{again}"
    )
