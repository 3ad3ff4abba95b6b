"""The command ``mark-notified``: what was told by somebody else."""

from datetime import datetime
from pathlib import Path

import click

from token_pipelines.cli.options import CONFIG_OPTION, Instant, opened_config
from token_pipelines.ledger.ledger import Ledger
from token_pipelines.model import rfc3339
from token_pipelines.pipeline import system_clock


@click.command(name="mark-notified")
@CONFIG_OPTION
@click.option("--before", type=Instant(), required=True, help="Every threshold before this instant counts as told.")
def mark_notified(path: Path, before: datetime) -> int:
    """Count everything that came due before an instant as told: by an older job, or by a ledger that was lost."""
    with opened_config(path) as config:
        ledger = Ledger.of(config)
        ledger.migrate()
        ledger.told.mark_before(before, mode=config.delivery.mode, at=system_clock())
        ledger.close()
    click.echo(f"Every threshold before {rfc3339(before)} counts as told, for notices in mode {config.delivery.mode}.")
    return 0
