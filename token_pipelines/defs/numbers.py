"""A day's numbers as Dagster metadata: plain numbers, which Dagster plots over the days, and tables to read."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import dagster as dg

from token_pipelines.delivery.counts import TierReport
from token_pipelines.model import UNREADABLE_SHOWN, Mode, Reason, UnreadableRow, explain_unreadable
from token_pipelines.planning import SnapshotCounts
from token_pipelines.tiers import Tier

OUTCOMES: Final = ("due", "sent", "deferred", "failed", "unknown", "waiting")
NOT_WRITTEN_BACK: Final = "not_written_back"
WRITE_BACK_FAULT: Final = "write_back_fault"
UNREADABLE_ROWS: Final = "unreadable_rows"
UNREADABLE_COUNT: Final = "unreadable"
RECIPIENTS_DUE: Final = "recipients_due"
MODE: Final = "mode"
RATE: Final = "rate_per_second"
"""Messages a second that were sent at most at the end: the relay may have asked for less than smtp.rate."""
SKIPPED_PREFIX: Final = "skipped_"
REASON_PREFIX: Final = "reason_"


def of_snapshot(counts: SnapshotCounts, tiers: Sequence[Tier], seconds: float) -> dict[str, Any]:
    """Metadata of ``expiring_tokens``: what to read, then numbers that are there only to be plotted."""
    numbers = {f"{REASON_PREFIX}{reason}": count for reason, count in sorted(counts.reasons.items())}
    due = [f"| {tier.name} | {counts.due_by_tier[tier.name]:,} |" for tier in tiers]
    reasons = [f"| {reason} | {count:,} |" for reason, count in counts.reasons.most_common()]
    return {
        "examined": counts.examined,
        "due": counts.due,
        RECIPIENTS_DUE: counts.recipients_due,
        "due_by_tier": _table("Tier", "Tokens due", due),
        "not_due": _table("Reason", "Tokens", reasons),
        **numbers,
        **_unreadable(counts.unreadable, counts.reasons[Reason.UNREADABLE]),
        "seconds": round(seconds, 3),
    }


def of_tier(report: TierReport, mode: Mode, seconds: float) -> dict[str, Any]:
    """Metadata of ``notices/<tier>``: the run's mode, then its numbers, counted in notices.

    The numbers come as a table to read, and once more by themselves for their plots.
    """
    outcomes = {outcome: getattr(report, outcome) for outcome in OUTCOMES}
    skipped = {f"{SKIPPED_PREFIX}{reason}": count for reason, count in sorted(report.skipped.items())}
    rows = [f"| {outcome} | {count:,} |" for outcome, count in outcomes.items()]
    rows += [f"| skipped: {reason} | {count:,} |" for reason, count in report.skipped.most_common()]
    summary = _table("Outcome", "Notices", rows)
    rate = {} if report.rate is None else {RATE: round(report.rate, 2)}
    write_back: dict[str, Any] = {}
    if report.not_written_back is not None:
        write_back[NOT_WRITTEN_BACK] = report.not_written_back
    if report.write_back_fault:
        write_back[WRITE_BACK_FAULT] = report.write_back_fault
    return {
        MODE: str(mode),
        "outcomes": summary,
        **outcomes,
        "skipped": report.skipped.total(),
        **skipped,
        **write_back,
        **rate,
        **_unreadable(list(report.unreadable)[:UNREADABLE_SHOWN], len(report.unreadable)),
        "seconds": round(seconds, 3),
    }


def _unreadable(rows: Sequence[UnreadableRow], count: int) -> dict[str, Any]:
    """How many rows could not be read, and which; nothing where all could."""
    return {UNREADABLE_COUNT: count, UNREADABLE_ROWS: explain_unreadable(rows, count)} if count else {}


def _table(left: str, right: str, rows: list[str]) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md("\n".join([f"| {left} | {right} |", "| --- | ---: |", *rows]))


def read_numbers(metadata: Mapping[str, Any], prefix: str) -> dict[str, int]:
    """The counts whose names have this prefix, by the rest of the name."""
    return {key.removeprefix(prefix): int(value.value) for key, value in metadata.items() if key.startswith(prefix)}


def read_text(metadata: Mapping[str, Any], name: str) -> str:
    """A text of the metadata; empty where there is none."""
    return str(metadata[name].value) if name in metadata else ""


def explain_write_back(missed: int, fault: str) -> str:
    """The message about sent notices for which source.on_sent has not run. They are not sent again."""
    notices = "1 sent notice" if missed == 1 else f"{missed:,} sent notices"
    return f"The source was not told of {notices}; later runs try again. {fault}".rstrip()
