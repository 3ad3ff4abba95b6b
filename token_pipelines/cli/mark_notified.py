"""The command ``mark-notified``: what was sent by an older job, or is missing in a restored ledger."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from token_pipelines.cli.opening import migrated_ledger, opened_config
from token_pipelines.cli.options import CONFIG_OPTION, Instant
from token_pipelines.cli.output import print_json, print_table, say
from token_pipelines.clock import system_clock
from token_pipelines.errors import ConfigError
from token_pipelines.model import rfc3339

if TYPE_CHECKING:
    from token_pipelines.ledger.ledger import Ledger

LARGEST_ID: Final = 2**63 - 1


@click.command(name="mark-notified")
@CONFIG_OPTION
@click.option("--before", type=Instant(), help="Every threshold before this instant counts as told.")
@click.option("--yes", is_flag=True, help="Mark an instant that is still to come.")
@click.option("--list", "listed", is_flag=True, help="Show the marks.")
@click.option("--undo", "mark_id", metavar="ID", type=click.IntRange(1, LARGEST_ID), help="Take a mark back.")
@click.option("--json", "as_json", is_flag=True, help="With --list: print one JSON object a line on stdout.")
def mark_notified(
    path: Path, before: datetime | None, mark_id: int | None, *, yes: bool, listed: bool, as_json: bool
) -> int:
    """Count what came due before an instant as told.

    For what an older job has sent, and for a ledger restored from an old backup.
    """
    if [before is not None, listed, mark_id is not None].count(True) != 1:
        msg = "mark-notified needs one of --before INSTANT, --list and --undo ID."
        raise ConfigError(msg)
    now = system_clock()
    if before is not None and before > now and not yes:
        msg = (
            f"{rfc3339(before)} is still to come, so nothing was marked: until then nobody would be told of anything. "
            "Correct --before, or add --yes if you mean it."
        )
        raise ConfigError(msg)
    with opened_config(path) as config, migrated_ledger(config) as ledger:
        if listed:
            _list(ledger, as_json=as_json)
        elif mark_id is not None:
            _undo(ledger, mark_id)
        elif before is not None:
            mode = config.delivery.mode
            made = ledger.told.mark_before(before, mode=mode, at=now)
            say(f"Every threshold before {rfc3339(before)} counts as told, for notices in mode {mode}.")
            say(f"To take this back: token-pipelines mark-notified{config.option} --undo {made}")
    return 0


def _list(ledger: "Ledger", *, as_json: bool) -> None:
    from rich.table import Table

    marks = ledger.told.marks()
    table = Table()
    for column in ("Id", "Counts as told before", "Mode", "Marked at"):
        table.add_column(column, no_wrap=True)
    for mark in marks:
        before, at = rfc3339(mark.before), rfc3339(mark.at)
        if as_json:
            print_json({"id": str(mark.mark_id), "before": before, "mode": mark.mode, "marked_at": at})
        table.add_row(str(mark.mark_id), before, mark.mode, at)
    if not as_json and marks:
        print_table(table)
    elif not as_json:
        say("Nothing is marked.")


def _undo(ledger: "Ledger", mark_id: int) -> None:
    mark = ledger.told.unmark(mark_id)
    if mark is None:
        msg = f"There is no mark {mark_id}; `token-pipelines mark-notified --list` shows them."
        raise ConfigError(msg)
    say(
        f"Taken back: thresholds before {rfc3339(mark.before)} count as told in mode {mark.mode} only where this "
        "ledger has sent, or another mark says so."
    )
