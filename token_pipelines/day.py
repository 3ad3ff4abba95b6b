"""One day: read what expires, plan the notices, send them tier by tier. Start reading here.

`read_tokens`, `plan_notices` and `send_share` are the steps; `run_day` puts them in order. Dagster runs the same three
steps as ops (`token_pipelines.defs.assets`). Each step says at INFO what it did: ids and counts, never an address.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import pandas as pd

from token_pipelines.delivery.counts import TierReport
from token_pipelines.delivery.tier import send_tier
from token_pipelines.errors import TokenPipelinesError
from token_pipelines.model import UNREADABLE_SHOWN, Mode, Reason, explain_unreadable
from token_pipelines.pipeline import Pipeline
from token_pipelines.planning import Share, SnapshotCounts, examine, no_tokens, plan

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class DayResult:
    """What a run did: what it read, each tier's numbers, and what stopped a tier."""

    counts: SnapshotCounts = field(default_factory=SnapshotCounts)
    tiers: dict[str, TierReport] = field(default_factory=dict)
    troubles: list[TokenPipelinesError] = field(default_factory=list)


def run_day(
    pipeline: Pipeline,
    *,
    run_id: str,
    day: date | None = None,
    tiers: Collection[str] = (),
    approve: bool = False,
    has_ended: Callable[[str], bool] = lambda _: False,
) -> DayResult:
    """Run a day without an orchestrator, most urgent tier first. An error that stops one tier does not stop the next.

    Args:
        pipeline: the pipeline. The schema of its ledger must be up to date.
        run_id: the run's name in the ledger.
        day: today by default.
        tiers: only these; all by default.
        approve: a person has approved the day's volume.
        has_ended: says, for the id of another run, whether that run is known to have ended.

    Raises:
        TokenPipelinesError: if the tokens cannot be read or the notices cannot be planned; then nothing was sent.
    """
    result = DayResult()
    day = day or pipeline.config.schedule.today(pipeline.clock())
    chosen = [tier.name for tier in pipeline.policy.tiers if not tiers or tier.name in tiers]
    pipeline.check_ledger()
    with pipeline.ledger.heartbeat(run_id):
        snapshot = collect(pipeline, read_tokens(pipeline, day=day, counts=result.counts))
        approver = f"run {run_id}" if approve else None
        shares = plan_notices(pipeline, snapshot, day=day, tiers=chosen, run_id=run_id, approved_by=approver)
        for tier in chosen:
            report = result.tiers[tier] = TierReport()
            try:
                send_share(pipeline, shares[tier], run_id=run_id, report=report, has_ended=has_ended)
            except TokenPipelinesError as error:
                result.troubles.append(error)
    return result


def read_tokens(pipeline: Pipeline, *, day: date, counts: SnapshotCounts) -> Iterator[pd.DataFrame]:
    """Step 1: read the tokens that may have reached a tier, and decide each one, in frames that fit in memory.

    ``counts`` is complete when the last frame has been read. The frames are those of `planning.examine`.
    """
    started = time.monotonic()
    yield from examine(pipeline, day=day, counts=counts)
    log.info(
        "%s: read %d tokens in %.1f s. Due: %s. Not due: %s.",
        day,
        counts.examined,
        time.monotonic() - started,
        _listed(counts.due_by_tier),
        _listed(counts.reasons),
    )
    if counts.unreadable:
        log.warning("%s: %s", day, explain_unreadable(counts.unreadable, counts.reasons[Reason.UNREADABLE]))


def collect(pipeline: Pipeline, frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Join the frames of `read_tokens` into one. Without frames, return an empty one with the same columns."""
    read = list(frames)
    return pd.concat(read, ignore_index=True) if read else no_tokens(pipeline)


def plan_notices(
    pipeline: Pipeline,
    snapshot: pd.DataFrame,
    *,
    day: date,
    tiers: Sequence[str],
    run_id: str,
    approved_by: str | None = None,
) -> dict[str, Share]:
    """Step 2: put the day's notices into the ledger, in one transaction, before anything is sent.

    Returns:
        Each tier's share.

    Raises:
        FuseTripped: if too many notices are new, or if nobody has approved an earlier trip of the fuse.
    """
    started = time.monotonic()
    shares = plan(pipeline, snapshot, day=day, tiers=tiers, run_id=run_id, approved_by=approved_by)
    log.info(
        "%s: planned in %.1f s. To send: %s.",
        day,
        time.monotonic() - started,
        _listed({tier: shares[tier].planned for tier in tiers}),
    )
    return shares


def send_share(
    pipeline: Pipeline,
    share: Share,
    *,
    run_id: str,
    report: TierReport,
    has_ended: Callable[[str], bool] = lambda _: False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Step 3, once per tier: send the waiting notices, those of earlier days too. A dry run only counts them.

    This fills ``report`` with the tier's numbers, even if it raises. The other arguments are those of `send_tier`.

    Raises:
        TokenPipelinesError: if something stopped the tier.
    """
    started = time.monotonic()
    report.skipped.update(share.unreachable)
    try:
        if pipeline.config.delivery.mode is Mode.DRY_RUN:
            report.waiting = share.planned
        else:
            send_tier(pipeline, share.tier, run_id=run_id, report=report, has_ended=has_ended, on_progress=on_progress)
    finally:
        log.info(
            "%s: %d sent, %d deferred, %d failed, %d in doubt, %d waiting in %.1f s. Skipped: %s.",
            share.tier,
            report.sent,
            report.deferred,
            report.failed,
            report.unknown,
            report.waiting,
            time.monotonic() - started,
            _listed(report.skipped),
        )
        if report.unreadable:
            rows = list(report.unreadable)
            log.warning("%s: %s", share.tier, explain_unreadable(rows[:UNREADABLE_SHOWN], len(rows)))


def _listed(counts: Mapping[str, int]) -> str:
    """``week 12, day 3``; ``none`` where nothing was counted."""
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"
