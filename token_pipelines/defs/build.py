"""Builds the Dagster definitions of a pipeline from its configuration, or those of several pipelines."""

import warnings
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from token_pipelines.clock import system_clock
from token_pipelines.config import Config
from token_pipelines.defs import assets, checks, descriptions, missed_days, volume
from token_pipelines.defs.heartbeat import heartbeat
from token_pipelines.defs.names import HEARTBEAT, OVERRIDES, PARQUET, PIPELINE, RUN_LOG, SHARES, Names
from token_pipelines.defs.overrides import POOL, Overrides
from token_pipelines.defs.run_log import run_log
from token_pipelines.defs.shares import share_io_manager
from token_pipelines.defs.storage import ParquetIOManager
from token_pipelines.defs.tags import DAY_TAG
from token_pipelines.model import Mode
from token_pipelines.pipeline import Pipeline

JOB: Final = "daily_notices"


def build_defs(config: Config, **overrides: Any) -> dg.Definitions:  # noqa: ANN401 -- the fields of Overrides
    """Build the assets, checks, job, schedule and sensor of a pipeline. Their names have its name as prefix, if any.

    Args:
        config: the checked configuration.
        overrides: fields of `Overrides` to replace: ``clock``, ``on_progress``, ``storage``, ``pool``.

    Raises:
        ConfigError: if the query, a template, a URL or the sender's address is wrong.
    """
    swapped = Overrides(**overrides)
    names = Names(config.name)
    pipeline = Pipeline(config, swapped.clock)
    pipeline.check()
    tiers = config.tier_ladder
    partitions = daily_partitions(config, swapped)
    keys = [names.expiring_tokens, *(names.notices(tier.name) for tier in tiers)]
    job = dg.define_asset_job(
        names.prefixed(JOB),
        selection=dg.AssetSelection.assets(*keys),
        config=_tagged_with_the_day(config, partitions),
        executor_def=dg.in_process_executor,
        description="One day: read what expires, plan the notices, send them tier by tier, most urgent first.",
    )
    schedule = dg.build_schedule_from_partitioned_job(
        job,
        name=names.prefixed("daily"),
        description="Starts each day's run. A day that it misses is asked for by the sensor "
        f"{names.prefixed(missed_days.SENSOR)}.",
        hour_of_day=config.schedule.at.hour,
        minute_of_hour=config.schedule.at.minute,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    freshness = descriptions.freshness(config.schedule.grace)
    return dg.Definitions(
        assets=[
            assets.build_expiring_tokens(names, partitions, freshness),
            assets.build_notices(
                names,
                partitions,
                tiers,
                pool=swapped.pool,
                freshness=None if config.delivery.mode is Mode.DRY_RUN else freshness,  # it never completes a tier
            ),
        ],
        asset_checks=_build_checks(names, partitions, config),
        jobs=[job],
        schedules=[schedule],
        sensors=[missed_days.build_sensor(job.name, keys, partitions, pipeline)],
        executor=dg.in_process_executor,
        resources={
            names.prefixed(PIPELINE): pipeline,
            names.prefixed(OVERRIDES): swapped,
            names.prefixed(HEARTBEAT): heartbeat,
            names.prefixed(RUN_LOG): run_log,
            names.prefixed(SHARES): share_io_manager,
            names.prefixed(PARQUET): ParquetIOManager(swapped.storage or config.state_folder / "parquet"),
        },
    )


def _tagged_with_the_day(
    config: Config, partitions: dg.PartitionsDefinition[str]
) -> dg.PartitionedConfig[dg.PartitionsDefinition[str]]:
    """Tags each run of the job with the pipeline and the day; its config stays empty."""
    return dg.PartitionedConfig(
        partitions,
        run_config_for_partition_key_fn=lambda _day: {},
        tags_for_partition_key_fn=lambda day: {DAY_TAG: "/".join(filter(None, (config.name, day)))},
    )


def _build_checks(
    names: Names, partitions: dg.PartitionsDefinition[str], config: Config
) -> list[dg.AssetChecksDefinition]:
    """Every check, partitioned by day like its asset: otherwise the UI would not show it on the day."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # one for every partitioned check, on the command line too
        built = [volume.build_volume_check(names, partitions), checks.build_bounces_check(names, partitions)]
        built.append(checks.build_rows_check(names, partitions))
        for tier in config.tier_ladder:
            built.append(checks.build_delivery_check(names, tier, partitions))
            if config.source.on_sent is not None:
                built.append(checks.build_on_sent_check(names, tier, partitions))
    return built


def build_all_defs(configs: Collection[Config], **overrides: Any) -> dg.Definitions:  # noqa: ANN401 -- as above
    """The definitions of every pipeline of a file, in one code location.

    Raises:
        ConfigError: as `build_defs`.
    """
    pools = relay_pools(list(configs))
    each = (build_defs(config, **{"pool": pool, **overrides}) for config, pool in zip(configs, pools, strict=True))
    return dg.Definitions.merge(*each)


def relay_pools(configs: Sequence[Config]) -> list[str]:
    """The pool of each pipeline. Pipelines with the same relay share one, so only one tier at a time sends through it.

    The pool of the first pipeline's relay has the name that it has for a single pipeline. Any other pool is named after
    the first pipeline that uses its relay.
    """
    relays = [(config.smtp.host, config.smtp.port) for config in configs]
    first = [relays.index(relay) for relay in relays]
    return [POOL if index == 0 else f"{POOL}__{configs[index].name}" for index in first]


def daily_partitions(config: Config, overrides: Overrides) -> dg.DailyPartitionsDefinition:
    """The days from the start date to today, or to the day that a rehearsal's clock shows."""
    schedule = config.schedule
    ahead = schedule.today(overrides.clock()) - schedule.today(system_clock())
    return dg.DailyPartitionsDefinition(
        start_date=schedule.start_date.isoformat(),
        timezone=schedule.timezone,
        end_offset=1 + max(ahead, timedelta()).days,
    )
