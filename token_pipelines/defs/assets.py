"""The assets: the tokens that expire, and one asset per tier for its notices. The ops call the steps of `day`.

One run handles one day. In the UI each tier has its own row of partition status and can be re-run alone.
"""

import time
from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg
import pandas as pd

from token_pipelines.day import collect, plan_notices, read_tokens, send_share
from token_pipelines.defs import descriptions, numbers, volume
from token_pipelines.defs.failures import failing_clearly
from token_pipelines.defs.known_runs import newest_run
from token_pipelines.defs.names import PARQUET, SHARES, Names
from token_pipelines.defs.storage import FrameStream
from token_pipelines.defs.tags import approver, means_new_ledger
from token_pipelines.delivery.counts import TierReport
from token_pipelines.errors import ConfigError, FuseTripped
from token_pipelines.model import Mode
from token_pipelines.pipeline import Pipeline
from token_pipelines.planning import Share, SnapshotCounts, no_tokens
from token_pipelines.tiers import Tier


def _begin(context: Any, names: Names) -> Pipeline:  # noqa: ANN401 -- op and asset contexts share no public type
    """Begin a step: migrate the ledger, start the run's heartbeat, and log to the step from now on.

    Raises:
        LedgerError: if the ledger looks like another one than until now, and nobody has said that it is meant.
    """
    pipeline = names.pipeline(context)
    names.run_log(context).follow(context.log)
    pipeline.ledger.migrate()
    newest = newest_run(context.instance, pipeline.config)
    pipeline.check_ledger(newest=newest, new_ledger=means_new_ledger(context.run))
    names.heartbeat(context).begin(pipeline, context.run.run_id)
    return pipeline


def _day(context: Any, pipeline: Pipeline) -> date:  # noqa: ANN401 -- op and asset contexts share no public type
    day = date.fromisoformat(context.partition_key)
    if day > pipeline.config.schedule.today(pipeline.clock()):
        msg = f"{day} has not come yet; run it on that day, or rehearse it with --now."
        raise ConfigError(msg)
    return day


def build_expiring_tokens(
    names: Names, partitions: dg.PartitionsDefinition[str], freshness: dg.FreshnessPolicy
) -> dg.AssetsDefinition:
    """The asset that reads a day's tokens and decides each one."""

    @dg.asset(
        key=names.expiring_tokens,
        partitions_def=partitions,
        io_manager_key=names.prefixed(PARQUET),
        required_resource_keys=names.resources,
        group_name=names.group,
        kinds={"pandas", "parquet"},
        metadata={"dagster/column_schema": descriptions.COLUMN_SCHEMA},
        freshness_policy=freshness,
        description="Every token whose expiry lies within the tiers' span, with its tier or the reason why it leads "
        "to no email. Holds ids, times and flags; no address, no secret.",
    )
    def expiring_tokens(context: dg.AssetExecutionContext) -> FrameStream:
        started = time.monotonic()
        counts = SnapshotCounts()
        with failing_clearly():
            pipeline = _begin(context, names)
            frames = read_tokens(pipeline, day=_day(context, pipeline), counts=counts)
            empty = no_tokens(pipeline)
        tiers = pipeline.policy.tiers
        return FrameStream(frames, empty, lambda: numbers.of_snapshot(counts, tiers, time.monotonic() - started))

    return expiring_tokens


def build_notices(
    names: Names,
    partitions: dg.PartitionsDefinition[str],
    tiers: tuple[Tier, ...],
    *,
    pool: str | None,
    freshness: dg.FreshnessPolicy | None,
) -> dg.AssetsDefinition:
    """One asset per tier. The op `partition_by_tier` plans all of them; then each has its own op that sends.

    ``freshness`` is of each tier: while the fuse holds all mail back, the tokens are still read on time.
    """
    planned = {tier.name: dg.Out(is_required=False, io_manager_key=names.prefixed(SHARES)) for tier in tiers}

    @dg.op(name=names.prefixed("partition_by_tier"), out=planned, required_resource_keys=names.resources)
    def partition_by_tier(
        context: dg.OpExecutionContext,
        expiring_tokens: Any,  # noqa: ANN401 -- a frame, or None when its file is gone
    ) -> Iterator[dg.Output[Share] | dg.AssetCheckEvaluation]:
        """Put the day's notices into the ledger, in one transaction, before anything is sent."""
        selected = [tier.name for tier in tiers if tier.name in context.selected_output_names]
        with failing_clearly():
            pipeline = _begin(context, names)
            day = _day(context, pipeline)
            fresh = expiring_tokens is not None and _reads_tokens(context.run, names)
            snapshot = expiring_tokens if fresh else _read_again(pipeline, day)
            try:
                shares = plan_notices(
                    pipeline,
                    snapshot,
                    day=day,
                    tiers=selected,
                    run_id=context.run_id,
                    approved_by=approver(context.run),
                )
            except FuseTripped:
                yield volume.evaluation(names, pipeline, context.run)
                raise
            yield volume.evaluation(names, pipeline, context.run)
        for tier in selected:
            yield dg.Output(shares[tier], tier)

    senders = {tier.name: _build_sender(names, tier, pool, priority=len(tiers) - i) for i, tier in enumerate(tiers)}

    @dg.graph_multi_asset(
        name=names.prefixed("notices"),
        ins={"expiring_tokens": dg.AssetIn(names.expiring_tokens)},
        outs={
            tier.name: dg.AssetOut(
                key=names.notices(tier.name),
                is_required=False,
                description=tier.describe(),
                kinds={"email"},
            )
            for tier in tiers
        },
        partitions_def=partitions,
        group_name=names.group,
        can_subset=True,
    )
    def notices(expiring_tokens: Any) -> dict[str, Any]:  # noqa: ANN401 -- Dagster hands over its own handles here
        shares = partition_by_tier(expiring_tokens)
        handles = {tiers[0].name: shares} if len(tiers) == 1 else shares._asdict()
        return {name: senders[name](share) for name, share in handles.items()}

    if freshness is None:
        return notices
    # `AssetOut` takes a policy too, and graph_multi_asset drops it.
    return notices.map_asset_specs(lambda spec: dg.apply_freshness_policy(spec, freshness))


def _reads_tokens(run: dg.DagsterRun, names: Names) -> bool:
    """Whether this run has read the day's tokens.

    An older file lacks the tokens that became due since. Planning from it would take them out of waiting notices.
    """
    return not run.asset_selection or names.expiring_tokens in run.asset_selection


def _read_again(pipeline: Pipeline, day: date) -> pd.DataFrame:
    """The day's tokens as they are now, if their file is missing or older than this run."""
    return collect(pipeline, read_tokens(pipeline, day=day, counts=SnapshotCounts()))


def _build_sender(names: Names, tier: Tier, pool: str | None, *, priority: int) -> dg.OpDefinition:
    @dg.op(
        name=names.prefixed(f"send_{tier.name}"),
        out=dg.Out(dg.Nothing, is_required=False),
        required_resource_keys=names.resources,
        pool=pool,
        tags={"dagster/priority": str(priority)},  # most urgent first; Dagster's own order is by name
        description=tier.describe(),
    )
    def send(context: dg.OpExecutionContext, share: Share) -> Iterator[dg.Output[None] | dg.AssetObservation]:
        overrides, mode = names.overrides(context), names.pipeline(context).config.delivery.mode
        started = time.monotonic()
        report = TierReport()

        def observation() -> dg.AssetObservation:
            metadata = numbers.of_tier(report, mode, time.monotonic() - started)
            return dg.AssetObservation(names.notices(tier.name), partition=context.partition_key, metadata=metadata)

        try:
            with failing_clearly():
                send_share(
                    _begin(context, names),
                    share,
                    run_id=context.run_id,
                    report=report,
                    has_ended=lambda run_id: _has_ended(context.instance, run_id),
                    on_progress=lambda done: overrides.on_progress(tier.name, done),
                )
        except BaseException:
            # The UI shows no metadata for a failed partition, so the numbers up to the failure go into an observation.
            # Yielded, not logged: if an op raises, Dagster drops the events that it logged.
            yield observation()
            raise
        if mode is Mode.DRY_RUN:  # nobody was told, so the day must not look complete
            yield observation()
        else:
            yield dg.Output(None, metadata=numbers.of_tier(report, mode, time.monotonic() - started))

    return send


def _has_ended(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and run.is_finished
