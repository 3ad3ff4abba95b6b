"""A day's numbers as Dagster metadata: plain numbers, which plot over the days, and a table to read."""

from collections.abc import Mapping
from typing import Any, Final

import dagster as dg

from token_pipelines.delivery import TierReport
from token_pipelines.planning import Examination

OUTCOMES: Final = ("due", "sent", "deferred", "failed", "unknown", "waiting")
RECIPIENTS_DUE: Final = "recipients_due"
SKIPPED_PREFIX: Final = "skipped_"
REASON_PREFIX: Final = "reason_"


def of_examination(examination: Examination, seconds: float) -> dict[str, Any]:
    """Metadata of ``expiring_tokens``."""
    numbers = {f"{REASON_PREFIX}{reason}": count for reason, count in sorted(examination.reasons.items())}
    tiers = [f"| {tier} | {count:,} |" for tier, count in examination.due_by_tier.items()]
    reasons = [f"| {reason} | {count:,} |" for reason, count in examination.reasons.most_common()]
    return {
        "examined": examination.examined,
        "due": examination.due,
        RECIPIENTS_DUE: examination.recipients_due,
        **numbers,
        "due_by_tier": _table("Tier", "Tokens due", tiers),
        "not_due": _table("Reason", "Tokens", reasons),
        "seconds": round(seconds, 3),
    }


def of_tier(report: TierReport, seconds: float) -> dict[str, Any]:
    """Metadata of ``notices/<tier>``, counted in notices."""
    outcomes = {outcome: getattr(report, outcome) for outcome in OUTCOMES}
    skipped = {f"{SKIPPED_PREFIX}{reason}": count for reason, count in sorted(report.skipped.items())}
    rows = [f"| {outcome} | {count:,} |" for outcome, count in outcomes.items() if outcome != "due"]
    rows += [f"| skipped: {reason} | {count:,} |" for reason, count in report.skipped.most_common()]
    summary = _table("Outcome", "Notices", rows)
    return {
        **outcomes,
        "skipped": report.skipped.total(),
        **skipped,
        "outcomes": summary,
        "seconds": round(seconds, 3),
    }


def _table(left: str, right: str, rows: list[str]) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md("\n".join([f"| {left} | {right} |", "| --- | ---: |", *rows]))


def read_numbers(metadata: Mapping[str, Any], prefix: str) -> dict[str, int]:
    """The counts under a prefix, by what follows it."""
    return {key.removeprefix(prefix): int(value.value) for key, value in metadata.items() if key.startswith(prefix)}
