"""The command ``run``: one day's job in this process."""

from datetime import date, datetime
from pathlib import Path

import click

from token_pipelines.cli.opening import opened_config
from token_pipelines.cli.options import CONFIG_OPTION, Day, Instant
from token_pipelines.cli.output import print_json, say
from token_pipelines.clock import clock_starting_at, system_clock


@click.command()
@CONFIG_OPTION
@click.option("--date", "day", type=Day(), help="The day to run; today by default.")
@click.option("--tier", "tiers", multiple=True, help="Only this tier; may be given more than once.")
@click.option("--now", type=Instant(), help="Set the product's clock, for rehearsals.")
@click.option("--approve-volume", is_flag=True, help="A person has looked: send, however many are due.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def run(
    path: Path, day: date | None, tiers: tuple[str, ...], now: datetime | None, *, approve_volume: bool, as_json: bool
) -> int:
    """Run one day's job in this process: read, decide, plan, send."""
    from token_pipelines.cli import terminal
    from token_pipelines.defs.launch import launch_day

    clock = clock_starting_at(now) if now else system_clock
    with opened_config(path) as config, terminal.progress() as on_progress:
        report = launch_day(config, day=day, tiers=tiers, clock=clock, approve=approve_volume, on_progress=on_progress)
    for failure in report.failures:
        say(failure, err=True)
    if as_json:
        print_json(report.as_object())
    else:
        terminal.show_report(report)
    return report.exit_status
