"""The sensor that catches up on missed days: Dagster's schedule does not repeat a tick that was missed.

It looks back over the configured days and requests runs for incomplete assets. The newest day comes first, so that
today's notices are recorded under today. The policy decides whether anything is still due on an old day.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import dagster as dg
from dagster import AssetPartitionStatus

from token_pipelines.config import Schedule
from token_pipelines.defs.names import Names
from token_pipelines.defs.numbers import MODE
from token_pipelines.defs.tags import ATTEMPT_TAG, PARTITION_TAG
from token_pipelines.defs.volume import CHECK
from token_pipelines.growth import explain_growth, open_growth_trip
from token_pipelines.model import Mode
from token_pipelines.pipeline import Pipeline

SENSOR: Final = "backfill_missed_days"
MAX_ATTEMPTS: Final = 5
"""After this many requests for a day, the sensor stops: a person must start its run."""

FIRST_PAUSE: Final = timedelta(minutes=5)
"""The pause before a failed day is requested again; doubled with each attempt."""

REQUESTS_PER_TICK: Final = 2
RUNS_READ: Final = 20
"""Of today, newest first: to find out whether one was killed."""

MATERIALIZATIONS_READ: Final = 1000
"""Of one asset, newest first: many more than the re-runs of the days that are looked at."""

INTERVAL_S: Final = 60


def days_to_look_at(schedule: Schedule, now: datetime) -> list[date]:
    """Days whose scheduled run should be over by now, newest first, within ``schedule.lookback_days``."""
    days = [schedule.today(now) - timedelta(days=back) for back in range(schedule.lookback_days + 1)]
    return [day for day in days if day >= schedule.start_date and schedule.run_at(day) + schedule.grace <= now]


def build_sensor(
    job_name: str, keys: Sequence[dg.AssetKey], partitions: dg.PartitionsDefinition[str], pipeline: Pipeline
) -> dg.SensorDefinition:
    """The sensor that requests runs of this job for these assets. All of them have the partitions ``partitions``."""
    names = Names(pipeline.config.name)

    @dg.sensor(
        name=names.prefixed(SENSOR),
        job_name=job_name,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for days of the last schedule.lookback_days that are missing, failed or cancelled.",
    )
    def backfill_missed_days(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        pipeline.ledger.migrate()
        _free_killed_runs(context.instance, pipeline)
        delivery = pipeline.config.delivery
        if delivery.mode is Mode.DRY_RUN:
            yield dg.SkipReason("delivery.mode is dry_run: nobody is told, so no day is asked for.")
            return
        trip = pipeline.ledger.fuse.open_trip(delivery.mode, max_notices=delivery.max_notices)
        if trip is not None:
            yield dg.SkipReason(
                f"The volume fuse has tripped, so no day is asked for. Look at the check {CHECK} of the asset "
                f"{names.expiring_tokens.to_user_string()}, then run the day with `token-pipelines "
                f"run{pipeline.config.option} --approve-volume`, raise delivery.max_notices to at least "
                f"{trip.new_notices}, or fix the source."
            )
            return
        grown = open_growth_trip(pipeline, pipeline.ledger.growth)
        if grown is not None:
            yield dg.SkipReason(f"No day is asked for. {explain_growth(grown, pipeline)}")
            return
        days = _days_of_killed_runs(context.instance, pipeline)
        days += days_to_look_at(pipeline.config.schedule, pipeline.clock())
        labels = [str(day) for day in days]
        statuses = {key: _statuses(context.instance, key, labels, partitions, delivery.mode) for key in keys}
        seen: list[str] = []
        asked = 0
        for day in days:
            found = {key: statuses[key].get(str(day)) for key in keys}
            request, what = _consider(context.instance, job_name, day, found)
            seen.append(f"{day}: {what}")
            if request is not None and asked < REQUESTS_PER_TICK:
                asked += 1
                yield request
        if not asked:
            yield dg.SkipReason("; ".join(seen) or "No scheduled day is over yet.")

    return backfill_missed_days


def _days_of_killed_runs(instance: dg.DagsterInstance, pipeline: Pipeline) -> list[date]:
    """Today, if its run was killed within ``schedule.grace``: nothing of it goes on that would have to be waited for.

    A run that failed in an orderly way waits for the grace: its cause may last, and attempts are few.
    """
    schedule, now = pipeline.config.schedule, pipeline.clock()
    today = schedule.today(now)
    if today < schedule.start_date or not schedule.run_at(today) <= now < schedule.run_at(today) + schedule.grace:
        return []
    of_today = dg.RunsFilter(tags={PARTITION_TAG: str(today)}, statuses=[dg.DagsterRunStatus.FAILURE])
    failed = [record.dagster_run.run_id for record in instance.get_run_records(of_today, limit=RUNS_READ)]
    return [today] if pipeline.ledger.killed_runs(failed) else []


def _statuses(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    days: Sequence[str],
    partitions: dg.PartitionsDefinition[str],
    mode: Mode,
) -> dict[str, AssetPartitionStatus | None]:
    """The asset's status on each of these days. A day that was run in another mode counts as missing.

    Somebody may try a redirect on a production day: those who are due must still be told on that day.
    """
    statuses: dict[str, AssetPartitionStatus | None] = dict(
        instance.get_status_by_partition(key, days, partitions) or {}
    )
    wanted = dg.AssetRecordsFilter(key, asset_partitions=list(days))
    modes: dict[str | None, str] = {}
    for record in instance.fetch_materializations(wanted, limit=MATERIALIZATIONS_READ).records if days else ():
        shown = record.asset_materialization and record.asset_materialization.metadata.get(MODE)
        modes.setdefault(record.partition_key, str(shown.value) if shown else str(mode))  # the newest comes first
    for day, found in statuses.items():
        if found is AssetPartitionStatus.MATERIALIZED and modes.get(day, mode) != mode:
            statuses[day] = None
    return statuses


def _free_killed_runs(instance: dg.DagsterInstance, pipeline: Pipeline) -> None:
    """Report runs as failed if their process was killed. Else Dagster shows them as running, and blocks their days."""
    started = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    killed = pipeline.ledger.expired_leases([record.dagster_run.run_id for record in started])
    for record in started:
        if record.dagster_run.run_id in killed:
            instance.report_run_failed(
                record.dagster_run, "The run's process sends no heartbeat any more: it, or its machine, was killed."
            )
            if instance.event_log_storage.supports_global_concurrency_limits:
                # Otherwise other pipelines with the same relay wait until the daemon frees its slot, minutes later.
                instance.event_log_storage.free_concurrency_slots_for_run(record.dagster_run.run_id)


def _consider(
    instance: dg.DagsterInstance, job_name: str, day: date, found: Mapping[dg.AssetKey, AssetPartitionStatus | None]
) -> tuple[dg.RunRequest | None, str]:
    """The run to ask for, if any, and what was seen, in words."""
    if AssetPartitionStatus.IN_PROGRESS in found.values():
        return None, "in progress"
    incomplete = [key for key, status in found.items() if status is not AssetPartitionStatus.MATERIALIZED]
    if not incomplete:
        return None, "complete"
    asked_for = _asked_for(instance, job_name, day)
    if any(not record.dagster_run.is_finished for record in asked_for):
        return None, "in progress"
    attempt = 1 + max((int(record.dagster_run.tags[ATTEMPT_TAG]) for record in asked_for), default=0)
    if attempt > MAX_ATTEMPTS:
        return None, f"gave up after {MAX_ATTEMPTS} attempts; look at its runs and start it by hand"
    if asked_for:
        rest = FIRST_PAUSE * 2 ** (attempt - 2)
        ends = max(record.end_time or record.update_timestamp.timestamp() for record in asked_for)
        if datetime.fromtimestamp(ends, UTC) + rest > datetime.now(UTC):
            return None, f"incomplete; attempt {attempt} waits {rest} after the end of the last"
    request = dg.RunRequest(
        run_key=f"{day}#{attempt}",
        partition_key=str(day),
        asset_selection=incomplete,
        tags={ATTEMPT_TAG: str(attempt)},
    )
    return request, f"asked for {len(incomplete)} of {len(found)} assets, attempt {attempt}"


def _asked_for(instance: dg.DagsterInstance, job_name: str, day: date) -> Sequence[dg.RunRecord]:
    """The runs of this day that the sensor requested, and their re-executions, which copy the tags.

    The caller takes the highest attempt number among them, not their count. So a person's re-executions use up no
    attempt, and no number is used twice: Dagster ignores a run key that it has seen before.
    """
    numbers = [str(number) for number in range(1, MAX_ATTEMPTS + 1)]
    tags = {PARTITION_TAG: str(day), ATTEMPT_TAG: numbers}
    return instance.get_run_records(dg.RunsFilter(job_name=job_name, tags=tags))
