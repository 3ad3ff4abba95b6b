"""What Dagster's storage knows of a pipeline's past, to compare it with the ledger."""

from datetime import UTC, date, datetime

import dagster as dg

from token_pipelines.config import Config
from token_pipelines.defs.names import Names
from token_pipelines.ledger.ownership import KnownRun


def newest_run(instance: dg.DagsterInstance, config: Config) -> KnownRun | None:
    """The run that completed a tier last. What a person reports as done in the UI is no run, and is left out."""
    names = Names(config.name)
    found: list[KnownRun] = []
    for tier in config.tier_ladder:
        for record in instance.fetch_materializations(names.notices(tier.name), limit=1).records:
            if record.run_id and record.partition_key:
                at = datetime.fromtimestamp(record.timestamp, UTC)
                reach = config.schedule.reach(date.fromisoformat(record.partition_key), at)
                found.append(KnownRun(run_id=record.run_id, at=at, reach=reach))
    return max(found, key=lambda run: run.at, default=None)
