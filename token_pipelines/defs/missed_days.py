"""The sensor that catches up: schedules of partitioned jobs never repeat a tick that nobody was there for.

Looks back over the configured days, newest first, and asks for what is incomplete, so that today's mail is booked
under today. It asks only; whether anything is still due on an old day is for the policy to say.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final

import dagster as dg
from dagster import AssetPartitionStatus

from token_pipelines.defs.assets import PARTITION_TAG
from token_pipelines.parts import Parts

ATTEMPT_TAG: Final = "token_pipelines/attempt"

MAX_ATTEMPTS: Final = 5
"""A day that was asked for this often waits for a person."""

FIRST_PAUSE: Final = timedelta(minutes=5)
"""How long a failed day rests before it is asked for again; doubled with each attempt."""

REQUESTS_PER_TICK: Final = 2
INTERVAL_S: Final = 60

Statuses = Mapping[dg.AssetKey, Mapping[str, AssetPartitionStatus | None]]


def days_to_look_at(parts: Parts) -> list[date]:
    """Days whose scheduled run should be over by now, newest first, as far back as the config says."""
    schedule = parts.config.schedule
    now = parts.clock()
    days = [schedule.today(now) - timedelta(days=back) for back in range(schedule.lookback_days + 1)]
    return [day for day in days if day >= schedule.start_date and schedule.run_at(day) + schedule.grace <= now]


def build_sensor(
    job_name: str, keys: Sequence[dg.AssetKey], partitions: dg.PartitionsDefinition[str], parts: Parts
) -> dg.SensorDefinition:
    """The sensor that asks for runs of this job, for these assets, all partitioned by the same days."""

    @dg.sensor(
        name="backfill_missed_days",
        job_name=job_name,
        minimum_interval_seconds=INTERVAL_S,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for days of the last schedule.lookback_days that are missing, failed or cancelled.",
    )
    def backfill_missed_days(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        parts.ledger.migrate()
        _free_killed_runs(context.instance, parts)
        if parts.ledger.has_open_trip(parts.config.delivery.mode):
            yield dg.SkipReason(
                "The volume fuse has tripped, so no day is asked for. Look at the check volume_is_plausible of the "
                "asset expiring_tokens, then run the day with `token-pipelines run --approve-volume`, or mend "
                "the source."
            )
            return
        days = days_to_look_at(parts)
        labels = [str(day) for day in days]
        statuses = {key: context.instance.get_status_by_partition(key, labels, partitions) or {} for key in keys}
        seen: list[str] = []
        asked = 0
        for day in days:
            request, what = _consider(context.instance, day, keys, statuses)
            seen.append(f"{day}: {what}")
            if request is not None and asked < REQUESTS_PER_TICK:
                asked += 1
                yield request
        if not asked:
            yield dg.SkipReason("; ".join(seen) or "No scheduled day is over yet.")

    return backfill_missed_days


def _free_killed_runs(instance: dg.DagsterInstance, parts: Parts) -> None:
    """End runs whose process was killed: Dagster would take them for alive for hours, and their days would wait."""
    started = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    silent = parts.ledger.lapsed([record.dagster_run.run_id for record in started])
    for record in started:
        if record.dagster_run.run_id in silent:
            instance.report_run_failed(
                record.dagster_run, "The run's process fell silent: it was killed, or its machine."
            )


def _consider(
    instance: dg.DagsterInstance, day: date, keys: Sequence[dg.AssetKey], statuses: Statuses
) -> tuple[dg.RunRequest | None, str]:
    """The run to ask for, if any, and what was seen, in words."""
    found = {key: statuses[key].get(str(day)) for key in keys}
    if AssetPartitionStatus.IN_PROGRESS in found.values():
        return None, "in progress"
    incomplete = [key for key, status in found.items() if status is not AssetPartitionStatus.MATERIALIZED]
    if not incomplete:
        return None, "complete"
    tags = {PARTITION_TAG: str(day)}
    earlier = instance.get_run_records(dg.RunsFilter(tags=tags), limit=MAX_ATTEMPTS + 1)
    if any(not record.dagster_run.is_finished for record in earlier):
        return None, "in progress"
    attempt = 1 + sum(ATTEMPT_TAG in record.dagster_run.tags for record in earlier)
    if attempt > MAX_ATTEMPTS:
        return None, f"gave up after {MAX_ATTEMPTS} attempts; look at its runs and start it by hand"
    rest = FIRST_PAUSE * 2 ** (attempt - 2) if attempt > 1 else timedelta()
    last_end = max((record.end_time or 0 for record in earlier), default=0)
    if datetime.fromtimestamp(last_end, UTC) + rest > datetime.now(UTC):
        return None, f"failed; attempt {attempt} waits {rest} after the last"
    request = dg.RunRequest(
        run_key=f"{day}#{attempt}",
        partition_key=str(day),
        asset_selection=incomplete,
        tags={ATTEMPT_TAG: str(attempt)},
    )
    return request, f"asked for {len(incomplete)} of {len(keys)} assets, attempt {attempt}"
