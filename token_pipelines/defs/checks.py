"""Asset checks: what an operator should look at, next to the day it concerns."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from token_pipelines.defs.failures import failing_clearly
from token_pipelines.defs.names import Names
from token_pipelines.defs.numbers import (
    NOT_WRITTEN_BACK,
    SKIPPED_PREFIX,
    UNREADABLE_COUNT,
    UNREADABLE_ROWS,
    WRITE_BACK_FAULT,
    explain_write_back,
    read_numbers,
    read_text,
)
from token_pipelines.defs.tags import day_of_check
from token_pipelines.tiers import Tier

Days = dg.PartitionsDefinition[str]

TROUBLES: Final = {
    "deferred": "were put off and are tried again by later runs",
    "failed": "were refused for good",
    "unknown": "are in doubt: no answer came after the message",
}
"""Outcomes that concern single recipients and leave the tier green, in words."""

BOUNCE_WINDOW: Final = timedelta(days=7)
"""How many days the check covers: mail systems try for four or five days (RFC 5321, 4.5.4.1) before they give up."""

BOUNCES_ALLOWED_PERCENT: Final = 2
"""Amazon SES recommends staying below it, and reviews a sender at 5 %."""


def build_delivery_check(names: Names, tier: Tier, partitions: Days) -> dg.AssetChecksDefinition:
    """Show failures for single recipients, which leave the tier green."""

    @dg.asset_check(
        asset=names.notices(tier.name),
        partitions_def=partitions,
        name="everyone_was_told",
        description="Nothing that was due in this tier was put off, refused, left in doubt or unreadable, and somebody "
        "of those who were due was told.",
    )
    def everyone_was_told(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        metadata = _metadata_of_the_day(context, names.notices(tier.name))
        counts = {outcome: _number(metadata, outcome) for outcome in TROUBLES}
        unreadable = read_text(metadata, UNREADABLE_ROWS)
        said = [each for each in (_explain_nobody_told(metadata), _explain_troubles(counts), unreadable) if each]
        return dg.AssetCheckResult(
            passed=not said,
            severity=dg.AssetCheckSeverity.WARN,
            metadata=dict(counts) | {UNREADABLE_COUNT: _number(metadata, UNREADABLE_COUNT)},
            description=" ".join(said) or None,
        )

    return everyone_was_told


def build_rows_check(names: Names, partitions: Days) -> dg.AssetChecksDefinition:
    """Name the rows of the source that cannot be read; they keep nobody else from being told.

    What is read only just before sending, as names are, shows in the tier's check `everyone_was_told`.
    """

    @dg.asset_check(
        asset=names.expiring_tokens,
        partitions_def=partitions,
        name="every_row_is_readable",
        description="Every row that the source query returned for the day could be read.",
    )
    def every_row_is_readable(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        metadata = _metadata_of_the_day(context, names.expiring_tokens)
        count = _number(metadata, UNREADABLE_COUNT)
        return dg.AssetCheckResult(
            passed=not count,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={UNREADABLE_COUNT: count},
            description=read_text(metadata, UNREADABLE_ROWS) or None,
        )

    return every_row_is_readable


def build_on_sent_check(names: Names, tier: Tier, partitions: Days) -> dg.AssetChecksDefinition:
    """Show that source.on_sent failed, which leaves the tier green: the notices were sent."""

    @dg.asset_check(
        asset=names.notices(tier.name),
        partitions_def=partitions,
        name="source_is_updated",
        description="source.on_sent was run for every notice that was sent, in this run and before.",
    )
    def source_is_updated(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        metadata = _metadata_of_the_day(context, names.notices(tier.name))
        missed = _number(metadata, NOT_WRITTEN_BACK)
        return dg.AssetCheckResult(
            passed=not missed,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={NOT_WRITTEN_BACK: missed},
            description=explain_write_back(missed, read_text(metadata, WRITE_BACK_FAULT)) if missed else None,
        )

    return source_is_updated


def build_bounces_check(names: Names, partitions: Days) -> dg.AssetChecksDefinition:
    """Show how many notices bounced, over several days: that is how long a bounce may take."""

    @dg.asset_check(
        asset=names.expiring_tokens,
        partitions_def=partitions,
        required_resource_keys=names.resources,
        name="few_bounces",
        description=f"At most {BOUNCES_ALLOWED_PERCENT} % of the notices sent in the last {BOUNCE_WINDOW.days} days "
        "bounced. `token-pipelines bounces` reads delivery reports into the ledger.",
    )
    def few_bounces(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        day_of_check(context.run)
        pipeline = names.pipeline(context)
        since = pipeline.config.schedule.today(pipeline.clock()) - BOUNCE_WINDOW
        with failing_clearly():
            sent, bounced = pipeline.ledger.bounces.count(mode=pipeline.config.delivery.mode, since=since)
        percent = 100 * bounced / sent if sent else 0.0
        return dg.AssetCheckResult(
            passed=percent <= BOUNCES_ALLOWED_PERCENT,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"sent": sent, "bounced": bounced, "percent": round(percent, 2)},
            description=_explain_bounces(sent, bounced),
        )

    return few_bounces


def _explain_nobody_told(metadata: Mapping[str, Any]) -> str | None:
    """A tier in which everybody was skipped is green, and looks like one in which everybody was told."""
    due, told = _number(metadata, "due"), _number(metadata, "sent")
    reasons = read_numbers(metadata, SKIPPED_PREFIX)
    if told or not due or not reasons:
        return None
    listed = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items(), key=lambda each: -each[1]))
    return f"Nobody of the {due:,} who were due was told. Skipped: {listed}."


def _explain_troubles(counts: Mapping[str, int]) -> str | None:
    seen = [f"{count:,} {TROUBLES[outcome]}" for outcome, count in counts.items() if count]
    return f"Of the day's notices, {', '.join(seen)}. `token-pipelines history --date` lists them." if seen else None


def _explain_bounces(sent: int, bounced: int) -> str | None:
    if 100 * bounced <= BOUNCES_ALLOWED_PERCENT * sent:
        return None
    return (
        f"Of {sent:,} notices sent in the last {BOUNCE_WINDOW.days} days, {bounced:,} came back. `token-pipelines "
        "history` has each one's reply: many of 5.1 mean old addresses in the source, many of 5.7 a sender who is "
        "not trusted (SPF, DKIM, DMARC)."
    )


def _metadata_of_the_day(context: dg.AssetCheckExecutionContext, key: dg.AssetKey) -> Mapping[str, Any]:
    """The metadata of the newest materialization of the run's day."""
    wanted = dg.AssetRecordsFilter(key, asset_partitions=[str(day_of_check(context.run))])
    records = context.instance.fetch_materializations(wanted, limit=1).records
    materialization = records[0].asset_materialization if records else None
    return materialization.metadata if materialization else {}


def _number(metadata: Mapping[str, Any], name: str) -> int:
    return int(metadata[name].value) if name in metadata else 0
