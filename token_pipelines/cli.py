"""The command line. Parses, calls the layers below, prints; an error is one sentence on stderr, never a traceback."""

import json
import sys
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import click

from token_pipelines.cli_bounces import bounces, suppress
from token_pipelines.cli_forecast import forecast
from token_pipelines.cli_source import source
from token_pipelines.errors import ConfigError, TokenPipelinesError
from token_pipelines.model import rfc3339
from token_pipelines.options import CONFIG_OPTION, FILE_OPTION, chosen_config, opened_config

UI_PORT: Final = 3000
INTERRUPTED: Final = 130


class _Instant(click.ParamType[datetime]):
    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ANN401 -- click's hook
        try:
            instant = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not an instant; write it like 2026-11-20T09:00:00Z.", param, ctx)
        if instant.tzinfo is None:
            self.fail(f"{value!r} has no time zone; write it like 2026-11-20T09:00:00Z.", param, ctx)
        return instant.astimezone(UTC)


class _Day(click.ParamType[date]):
    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:  # noqa: ANN401 -- click's hook
        try:
            return date.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a day; write it like 2026-11-20.", param, ctx)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("token-pipelines"))
def cli() -> None:
    """Tell the owners of expiring tokens in good time, once per step of urgency."""


@cli.command()
@CONFIG_OPTION
@click.option("--date", "day", type=_Day(), help="The day to run; today by default.")
@click.option("--tier", "tiers", multiple=True, help="Only this tier; may be given more than once.")
@click.option("--now", type=_Instant(), help="Set the product's clock, for rehearsals.")
@click.option("--approve-volume", is_flag=True, help="A person has looked: send, however many are due.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def run(
    path: Path, day: date | None, tiers: tuple[str, ...], now: datetime | None, *, approve_volume: bool, as_json: bool
) -> int:
    """Run one day's job in this process: read, decide, plan, send."""
    from token_pipelines import terminal  # noqa: PLC0415 -- Dagster and pandas take seconds to import
    from token_pipelines.defs.launch import run_day  # noqa: PLC0415
    from token_pipelines.parts import clock_starting_at, system_clock  # noqa: PLC0415

    clock = clock_starting_at(now) if now else system_clock
    with opened_config(path) as config, terminal.progress() as on_progress:
        report = run_day(config, day=day, tiers=tiers, clock=clock, approve=approve_volume, on_progress=on_progress)
    for failure in report.failures:
        click.echo(failure, err=True)
    if as_json:
        click.echo(json.dumps(report.as_object()))
    else:
        terminal.show_report(report)
    return report.exit_status


@cli.command()
@CONFIG_OPTION
@click.option("--date", "day", type=_Day(), help="Only notices planned on this day.")
@click.option("--token", "token_id", help="Only notices about this token.")
@click.option("--recipient", "recipient_id", help="Only notices to this recipient.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line on stdout.")
def history(path: Path, day: date | None, token_id: str | None, recipient_id: str | None, *, as_json: bool) -> int:
    """What the ledger says: was this person warned, and when?"""
    from token_pipelines import terminal  # noqa: PLC0415 -- SQLAlchemy takes a while to import
    from token_pipelines.ledger.ledger import Ledger  # noqa: PLC0415

    with opened_config(path) as config:
        ledger = Ledger.of(config)
        ledger.migrate()
        entries = ledger.history(day=day, token_id=token_id, recipient_id=recipient_id)
        if as_json:
            for entry in entries:
                click.echo(json.dumps(entry))
        else:
            terminal.show_history(entries)
        ledger.close()
    return 0


@cli.command(name="mark-notified")
@CONFIG_OPTION
@click.option("--before", type=_Instant(), required=True, help="Every threshold before this instant counts as told.")
def mark_notified(path: Path, before: datetime) -> int:
    """Count everything that came due before an instant as told: by an older job, or by a ledger that was lost."""
    from token_pipelines.ledger.ledger import Ledger  # noqa: PLC0415 -- SQLAlchemy takes a while to import
    from token_pipelines.parts import system_clock  # noqa: PLC0415

    with opened_config(path) as config:
        ledger = Ledger.of(config)
        ledger.migrate()
        ledger.mark_notified(before, mode=config.delivery.mode, at=system_clock())
        ledger.close()
    click.echo(f"Every threshold before {rfc3339(before)} counts as told, for notices in mode {config.delivery.mode}.")
    return 0


@cli.command()
@FILE_OPTION
@click.option("--once", is_flag=True, help="Exit after the runs.")
@click.option("--port", default=UI_PORT, show_default=True, help="Where to serve the Dagster UI, on loopback.")
def demo(path: Path, *, once: bool, port: int) -> int:
    """Try it: a sample registry, a local inbox, the last three days and today, and the Dagster UI."""
    from token_pipelines.demo import show  # noqa: PLC0415 -- the demo's libraries are an extra

    return show.show(path, once=once, port=port)


@cli.command()
@CONFIG_OPTION
@click.option("--out", "folder", type=click.Path(path_type=Path), help="Where to; .token_pipelines/preview by default.")
@click.option("--send-to", "address", help="Also send a choice of them to this address, through the relay.")
def preview(path: Path, folder: Path | None, address: str | None) -> int:
    """Every email on made-up tokens, as pages to look at. Needs no database."""
    from token_pipelines.preview import gallery  # noqa: PLC0415 -- Babel and Jinja take a while to import

    if address is not None:
        from token_pipelines.preview import sending  # noqa: PLC0415 -- pandas takes longer still

        sending.check(address)
    config, now = chosen_config(path), datetime.now(UTC)
    index, count = gallery.write(config, folder or config.folder / gallery.FOLDER, now=now)
    click.echo(f"{count} emails; look at them at {index.absolute().as_uri()}")
    if address is not None:
        with opened_config(path) as opened:
            click.echo(f"{sending.send(opened, address, now=now)} of them were sent.")
    return 0


cli.add_command(bounces)
cli.add_command(forecast)
cli.add_command(source)
cli.add_command(suppress)


def main() -> None:
    """The console script."""
    try:
        status = cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        status = INTERRUPTED
    except click.ClickException as error:
        click.echo(f"{error.format_message()} See --help.", err=True)
        status = ConfigError.exit_status
    except TokenPipelinesError as error:
        click.echo(str(error), err=True)
        status = error.exit_status
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status if isinstance(status, int) else 0)
