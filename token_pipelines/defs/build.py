"""Puts the Dagster definitions of one pipeline together from its configuration."""

from datetime import timedelta
from typing import Any, Final

import dagster as dg

from token_pipelines.config import Config
from token_pipelines.defs import assets, checks, descriptions, missed_days
from token_pipelines.defs.life import life
from token_pipelines.defs.overrides import Overrides
from token_pipelines.defs.storage import ParquetIOManager
from token_pipelines.parts import assemble, system_clock

JOB: Final = "daily_notices"
STATE_FOLDER: Final = ".token_pipelines"
"""Beside the config: Dagster's home, unless DAGSTER_HOME says otherwise, and the parquet files."""


def build_defs(config: Config, **overrides: Any) -> dg.Definitions:  # noqa: ANN401 -- the fields of Overrides
    """Assets, checks, job, schedule and sensor of the pipeline that ``config`` describes.

    Args:
        config: the checked configuration.
        overrides: fields of `Overrides` to swap: ``clock``, ``on_progress``, ``storage``, ``pool``.

    Raises:
        ConfigError: if the query, a template, a URL or the sender's address is wrong.
    """
    swapped = Overrides(**overrides)
    parts = assemble(config, swapped.clock)
    tiers = config.tier_ladder
    partitions = daily_partitions(config, swapped)
    job = dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.all(),
        executor_def=dg.in_process_executor,
        description="One day: read what expires, plan the notices, send them tier by tier, most urgent first.",
    )
    schedule = dg.build_schedule_from_partitioned_job(
        job,
        name="daily",
        description="Starts each day's run. A day that it misses is asked for by the sensor backfill_missed_days.",
        hour_of_day=config.schedule.at.hour,
        minute_of_hour=config.schedule.at.minute,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    freshness = descriptions.freshness(config.schedule.grace)
    keys = [assets.EXPIRING_TOKENS, *(assets.notices_key(tier.name) for tier in tiers)]
    return dg.Definitions(
        assets=[
            assets.build_expiring_tokens(partitions, freshness),
            assets.build_notices(partitions, tiers, swapped.pool),
        ],
        asset_checks=[
            checks.build_volume_check(),
            checks.build_bounces_check(),
            *(checks.build_delivery_check(tier) for tier in tiers),
            *(checks.build_write_back_check(tier) for tier in tiers if config.source.on_sent is not None),
        ],
        jobs=[job],
        schedules=[schedule],
        sensors=[missed_days.build_sensor(JOB, keys, partitions, parts)],
        executor=dg.in_process_executor,
        resources={
            "parts": parts,
            "overrides": swapped,
            "life": life,
            assets.PARQUET: ParquetIOManager(swapped.storage or config.folder / STATE_FOLDER / "parquet"),
        },
    )


def daily_partitions(config: Config, overrides: Overrides) -> dg.DailyPartitionsDefinition:
    """The days from the start date to today; a rehearsal's clock may be ahead of the world's."""
    schedule = config.schedule
    ahead = schedule.today(overrides.clock()) - schedule.today(system_clock())
    return dg.DailyPartitionsDefinition(
        start_date=schedule.start_date.isoformat(),
        timezone=schedule.timezone,
        end_offset=1 + max(ahead, timedelta()).days,
    )
