"""The command ``mark-notified``: what was sent by an older job, or is missing in a restored ledger."""

from datetime import datetime
from pathlib import Path

import click

from token_pipelines.cli.opening import migrated_ledger, opened_config
from token_pipelines.cli.options import CONFIG_OPTION, Instant
from token_pipelines.cli.output import say
from token_pipelines.clock import system_clock
from token_pipelines.model import rfc3339


@click.command(name="mark-notified")
@CONFIG_OPTION
@click.option("--before", type=Instant(), required=True, help="Every threshold before this instant counts as told.")
def mark_notified(path: Path, before: datetime) -> int:
    """Count what came due before an instant as told.

    For what an older job has sent, and for a ledger restored from an old backup.
    """
    with opened_config(path) as config, migrated_ledger(config) as ledger:
        ledger.told.mark_before(before, mode=config.delivery.mode, at=system_clock())
    say(f"Every threshold before {rfc3339(before)} counts as told, for notices in mode {config.delivery.mode}.")
    return 0
