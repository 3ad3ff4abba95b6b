"""The check ``volume_is_plausible``: shows the state of the volume fuse on each day. It does not trip the fuse.

A run evaluates it twice: before planning, where it stops the day if the fuse has tripped and nobody has approved that;
and after planning, which alone trips the fuse.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dagster as dg

from token_pipelines.defs.failures import failing_clearly
from token_pipelines.defs.names import Names
from token_pipelines.defs.tags import PARTITION_TAG, day_of_check, is_approved
from token_pipelines.growth import open_growth_trip
from token_pipelines.pipeline import Pipeline
from token_pipelines.planning import explain_open_trip

CHECK: Final = "volume_is_plausible"


@dataclass(frozen=True, kw_only=True)
class Volume:
    """What the check shows."""

    passed: bool
    description: str | None
    metadata: Mapping[str, Any]


def read_volume(pipeline: Pipeline, run: dg.DagsterRun) -> Volume:
    """Ask the ledger whether the fuse has tripped, and how many notices the run's day has."""
    delivery = pipeline.config.delivery
    trip = pipeline.ledger.fuse.open_trip(delivery.mode, max_notices=delivery.max_notices)
    approved = is_approved(run)
    metadata: dict[str, Any] = {"max_notices": delivery.max_notices, "approved": approved}
    metadata["planned"] = pipeline.ledger.fuse.planned_on(day_of_check(run), delivery.mode)
    grown = open_growth_trip(pipeline, pipeline.ledger.growth) if trip is None else None
    if trip is None and grown is None:
        return Volume(passed=True, description=None, metadata=metadata)
    if trip is not None:
        metadata |= {"tripped_on": str(trip.day), "new_notices": trip.new_notices}
    if grown is not None:
        metadata |= {"tripped_on": str(grown.day), "new_notices": grown.new_notices, "usual_day": grown.usual}
    description = "A person has approved the day's volume." if approved else explain_open_trip(pipeline)
    return Volume(passed=approved, description=description, metadata=metadata)


def build_volume_check(names: Names, partitions: dg.PartitionsDefinition[str]) -> dg.AssetChecksDefinition:
    """The check that stops a day before planning while the fuse has tripped."""

    @dg.asset_check(
        asset=names.expiring_tokens,
        partitions_def=partitions,
        required_resource_keys=names.resources,
        name=CHECK,
        blocking=True,
        description="No more notices are new than delivery.max_notices and delivery.max_growth allow, or a person has "
        "approved the day.",
    )
    def volume_is_plausible(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        day_of_check(context.run)
        with failing_clearly():
            volume = read_volume(names.pipeline(context), context.run)
        return dg.AssetCheckResult(passed=volume.passed, metadata=volume.metadata, description=volume.description)

    return volume_is_plausible


def evaluation(names: Names, pipeline: Pipeline, run: dg.DagsterRun) -> dg.AssetCheckEvaluation:
    """The same check after planning; the planning op yields it."""
    volume = read_volume(pipeline, run)
    return dg.AssetCheckEvaluation(
        asset_key=names.expiring_tokens,
        check_name=CHECK,
        passed=volume.passed,
        metadata=volume.metadata,
        description=volume.description,
        partition=run.tags.get(PARTITION_TAG),
    )
