"""The command ``run``: one day's job in this process."""

from contextlib import closing
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from token_pipelines.cli.opening import opened_config
from token_pipelines.cli.options import CONFIG_OPTION, Day, Instant
from token_pipelines.cli.output import print_json, say
from token_pipelines.clock import clock_starting_at, system_clock

if TYPE_CHECKING:
    from token_pipelines.config import Config


@click.command()
@CONFIG_OPTION
@click.option("--date", "day", type=Day(), help="The day to run; today by default.")
@click.option("--tier", "tiers", multiple=True, help="Only this tier; may be given more than once.")
@click.option("--now", type=Instant(), help="Set the product's clock, for rehearsals.")
@click.option("--approve-volume", is_flag=True, help="A person has looked: send, however many are due.")
@click.option("--new-ledger", is_flag=True, help="The ledger is meant as it is, empty or older than Dagster's runs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def run(  # noqa: PLR0913 -- one for each option
    path: Path,
    day: date | None,
    tiers: tuple[str, ...],
    now: datetime | None,
    *,
    approve_volume: bool,
    new_ledger: bool,
    as_json: bool,
) -> int:
    """Run one day's job in this process: read, decide, plan, send."""
    from token_pipelines.cli import terminal
    from token_pipelines.defs.launch import launch_day

    clock = clock_starting_at(now) if now else system_clock
    with opened_config(path) as config, terminal.progress() as on_progress:
        if new_ledger:
            _mean_new_ledger(config)
        report = launch_day(config, day=day, tiers=tiers, clock=clock, approve=approve_volume, on_progress=on_progress)
    for failure in report.failures:
        say(failure, err=True)
    if as_json:
        print_json(report.as_object())
    else:
        terminal.show_report(report)
    return report.exit_status


def _mean_new_ledger(config: "Config") -> None:
    """Keep in the ledger that a person means it as it is, before a run looks at it."""
    from token_pipelines.pipeline import Pipeline

    with closing(Pipeline(config)) as pipeline:
        pipeline.ledger.migrate()
        pipeline.check_ledger(new_ledger=True)
