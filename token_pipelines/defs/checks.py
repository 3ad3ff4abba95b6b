"""Asset checks: what an operator should look at, next to the day it concerns."""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any, Final

import dagster as dg

from token_pipelines.defs.assets import PARTITION_TAG, is_approved
from token_pipelines.defs.failures import failing_clearly
from token_pipelines.defs.names import Names
from token_pipelines.defs.numbers import (
    NOT_WRITTEN_BACK,
    RECIPIENTS_DUE,
    WRITE_BACK_FAULT,
    explain_write_back,
    read_text,
)
from token_pipelines.planning import trip_fuse
from token_pipelines.tiers import Tier

TROUBLES: Final = {
    "deferred": "were put off and are tried again by later runs",
    "failed": "were refused for good",
    "unknown": "are in doubt: no answer came after the message",
}
"""Outcomes that lie with a recipient and leave the tier green, in words."""

BOUNCE_WINDOW: Final = timedelta(days=7)
"""How far back bounces are weighed: mail systems try for four or five days (RFC 5321, 4.5.4.1) before they give up."""

BOUNCES_ALLOWED_PERCENT: Final = 2
"""Amazon SES recommends to stay below it, and reviews a sender at five in a hundred."""


def build_volume_check(names: Names) -> dg.AssetChecksDefinition:
    """Show the volume fuse on the day; planning enforces it, whatever this check says."""

    @dg.asset_check(
        asset=names.expiring_tokens,
        required_resource_keys=names.resources,
        name="volume_is_plausible",
        blocking=True,
        description="No more recipients are due than delivery.max_notices allows, or a person has approved the day.",
    )
    def volume_is_plausible(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        pipeline = names.pipeline(context)
        due = _number(_metadata_of_the_day(context, names.expiring_tokens), RECIPIENTS_DUE)
        limit = pipeline.config.delivery.max_notices
        approved = is_approved(context)
        passed = due <= limit or approved
        if not passed:
            day = date.fromisoformat(context.run.tags[PARTITION_TAG])
            trip_fuse(pipeline, day=day, run_id=context.run.run_id, new=due)
        return dg.AssetCheckResult(
            passed=passed,
            metadata={RECIPIENTS_DUE: due, "max_notices": limit, "approved": approved},
            description=_explain_volume(due, limit, pipeline.config.option, approved=approved),
        )

    return volume_is_plausible


def build_delivery_check(names: Names, tier: Tier) -> dg.AssetChecksDefinition:
    """Show a recipient's own trouble, which leaves the tier green."""

    @dg.asset_check(
        asset=names.notices(tier.name),
        name="everyone_was_told",
        description="Nothing that was due in this tier was put off, refused or left in doubt.",
    )
    def everyone_was_told(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        metadata = _metadata_of_the_day(context, names.notices(tier.name))
        counts = {outcome: _number(metadata, outcome) for outcome in TROUBLES}
        return dg.AssetCheckResult(
            passed=not any(counts.values()),
            severity=dg.AssetCheckSeverity.WARN,
            metadata=dict(counts),
            description=_explain_troubles(counts),
        )

    return everyone_was_told


def build_write_back_check(names: Names, tier: Tier) -> dg.AssetChecksDefinition:
    """Show that source.on_sent failed, which leaves the tier green: everybody was told."""

    @dg.asset_check(
        asset=names.notices(tier.name),
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


def build_bounces_check(names: Names) -> dg.AssetChecksDefinition:
    """Show what came back after the relay had taken it: days later, so no tier's own day could."""

    @dg.asset_check(
        asset=names.expiring_tokens,
        required_resource_keys=names.resources,
        name="few_bounces",
        description=f"Of the notices sent in the last {BOUNCE_WINDOW.days} days, at most {BOUNCES_ALLOWED_PERCENT} % "
        "came back. `token-pipelines bounces` reads what came back into the ledger.",
    )
    def few_bounces(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
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


def _explain_volume(due: int, limit: int, option: str, *, approved: bool) -> str | None:
    if due <= limit:
        return None
    over = f"{due:,} recipients are due, over delivery.max_notices of {limit:,}"
    if approved:
        return f"{over}; a person has approved it."
    return f"{over}. Look at the numbers of the day, then run it with{option} --approve-volume, or mend the source."


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
    """What the newest materialization of the run's partition says of itself."""
    day = context.run.tags[PARTITION_TAG]
    wanted = dg.AssetRecordsFilter(key, asset_partitions=[day])
    records = context.instance.fetch_materializations(wanted, limit=1).records
    materialization = records[0].asset_materialization if records else None
    return materialization.metadata if materialization else {}


def _number(metadata: Mapping[str, Any], name: str) -> int:
    return int(metadata[name].value) if name in metadata else 0
